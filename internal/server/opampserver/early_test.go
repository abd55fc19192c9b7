package opampserver

import (
	"bufio"
	"fmt"
	"net/http"
	"testing"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

// A client may send its first frame together with the upgrade: nothing of it may be lost between two buffers.
func TestFirstFrameBehindTheUpgrade(t *testing.T) {
	t.Parallel()
	g, uid := newRig(t, Options{}), newUID()
	frame := frameOf(t, full(uid, 0))
	header := []byte{0x82, 0x80 | 126, byte(len(frame) >> 8), byte(len(frame)), 0, 0, 0, 0} // a mask of zeros
	if len(frame) < 126 {
		header = []byte{0x82, 0x80 | byte(len(frame)), 0, 0, 0, 0}
	}
	c := g.rawConn()
	_, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n%s%s", Path, header, frame)
	require.NoError(t, err)
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	require.NoError(t, err)
	_ = resp.Body.Close()
	require.Equal(t, http.StatusSwitchingProtocols, resp.StatusCode)
	first, err := r.ReadByte()
	require.NoError(t, err)
	require.Equal(t, byte(0x80)|byte(websocket.MessageBinary), first)
	require.Equal(t, uid, g.fleet.last().UID)
}
