package swarm

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

const (
	// patience is how long one step of the protocol may take.
	patience = 30 * time.Second
	// closing is how long the server may take to answer a Close frame.
	closing = 5 * time.Second
	// longestMessage is what an agent takes, in bytes.
	longestMessage = 64 << 20
)

// The opcodes of WebSocket (RFC 6455, section 5.2).
const (
	opContinue = 0x0
	opBinary   = 0x2
	opClose    = 0x8
	opPing     = 0x9
	opPong     = 0xa
)

// refusal is an answer to the upgrade that is no upgrade, or an agent that is asked to go away.
type refusal struct {
	status string
	after  time.Duration
}

func (r *refusal) Error() string {
	return fmt.Sprintf("refused: %s, retry after %v", r.status, r.after)
}

// wire is a WebSocket with hardly any memory: answers are small, and a large message has a buffer as long as it is looked at.
type wire struct {
	net.Conn
	buf  [256]byte // read and not yet looked at: buf[r:w]
	r, w int
	part []byte // of a message in several frames
}

// dial connects and upgrades.
func dial(ctx context.Context, from net.IP, to target, request []byte) (*wire, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: from}, Timeout: patience, KeepAlive: -1}
	conn, err := d.DialContext(ctx, "tcp4", to.address)
	if err != nil {
		return nil, err
	}
	w := &wire{Conn: conn}
	if err := w.upgrade(request); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return w, nil
}

// upgradeRequest is the same for all agents.
func upgradeRequest(to target, header http.Header) []byte {
	var b bytes.Buffer
	_, _ = fmt.Fprintf(&b, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", to.path, to.address)
	_ = header.Write(&b)
	b.WriteString("\r\n")
	return b.Bytes()
}

// upgrade reads byte by byte out of buf, so that nothing behind the header is lost.
func (w *wire) upgrade(request []byte) error {
	_ = w.SetDeadline(time.Now().Add(patience))
	if _, err := w.Write(request); err != nil {
		return err
	}
	var header []byte
	for !bytes.HasSuffix(header, []byte("\r\n\r\n")) {
		if len(header) > 16<<10 {
			return errors.New("the answer to the upgrade does not end")
		}
		if err := w.fill(1); err != nil {
			return err
		}
		header = append(header, w.buf[w.r])
		w.r++
	}
	resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(header)), nil)
	if err != nil {
		return err
	}
	_ = resp.Body.Close() // it is not there
	if resp.StatusCode != http.StatusSwitchingProtocols {
		seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
		return &refusal{resp.Status, time.Duration(seconds) * time.Second}
	}
	return w.SetDeadline(time.Time{})
}

// fill has at least n bytes in buf, n being at most its size.
func (w *wire) fill(n int) error {
	if w.w-w.r >= n {
		return nil
	}
	w.w = copy(w.buf[:], w.buf[w.r:w.w])
	w.r = 0
	for w.w < n {
		got, err := w.Read(w.buf[w.w:])
		w.w += got
		if err != nil && w.w < n {
			return err
		}
	}
	return nil
}

// message is the next one, control frames included; it is good until the next call.
func (w *wire) message() (opcode byte, payload []byte, err error) {
	for {
		op, fin, payload, err := w.frame()
		switch {
		case err != nil || op >= opClose || fin && op != opContinue:
			return op, payload, err
		case len(w.part)+len(payload) > longestMessage:
			return 0, nil, errors.New("message is too long")
		}
		w.part = append(w.part, payload...)
		if fin {
			payload, w.part = w.part, nil
			return opBinary, payload, nil
		}
	}
}

func (w *wire) frame() (opcode byte, fin bool, payload []byte, err error) {
	if err := w.fill(2); err != nil {
		return 0, false, nil, err
	}
	opcode, fin = w.buf[w.r]&0x0f, w.buf[w.r]&0x80 != 0
	size := uint64(w.buf[w.r+1])
	w.r += 2
	switch size {
	case 126:
		if err = w.fill(2); err == nil {
			size = uint64(binary.BigEndian.Uint16(w.buf[w.r:]))
			w.r += 2
		}
	case 127:
		if err = w.fill(8); err == nil {
			size = binary.BigEndian.Uint64(w.buf[w.r:])
			w.r += 8
		}
	}
	if err != nil || size > longestMessage {
		return 0, false, nil, errors.Join(err, fmt.Errorf("a frame of %d bytes", size))
	}
	payload, err = w.take(int(size))
	return opcode, fin, payload, err
}

func (w *wire) take(size int) ([]byte, error) {
	if size <= len(w.buf) {
		err := w.fill(size)
		if err != nil {
			return nil, err
		}
		payload := w.buf[w.r : w.r+size]
		w.r += size
		return payload, nil
	}
	payload := make([]byte, size)
	got := copy(payload, w.buf[w.r:w.w])
	w.r, w.w = 0, 0
	_, err := io.ReadFull(w.Conn, payload[got:])
	return payload, err
}

// frames are buffers of what is being written.
var frames = sync.Pool{New: func() any { b := make([]byte, 0, 1<<10); return &b }}

// put writes one frame. The mask that a client must use is one of zeros: it hides nothing and costs nothing.
func (w *wire) put(opcode byte, size int, payload func([]byte) ([]byte, error)) error {
	pooled := frames.Get().(*[]byte)
	defer frames.Put(pooled)
	b := append((*pooled)[:0], 0x80|opcode)
	switch {
	case size < 126:
		b = append(b, 0x80|byte(size))
	case size < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(size))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(size))
	}
	b, err := payload(append(b, 0, 0, 0, 0))
	*pooled = b
	if err != nil {
		return err
	}
	if err := w.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}

// control writes a control frame.
func (w *wire) control(opcode byte, data []byte) error {
	return w.put(opcode, len(data), func(b []byte) ([]byte, error) { return append(b, data...), nil })
}

// reset ends the connection as a crash does: the peer sees a reset, and nothing before it.
func (w *wire) reset() {
	if tcp, ok := w.Conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = w.Close()
}
