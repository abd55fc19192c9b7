package opampserver

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/protobufs"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

var (
	// errMalformed is a message that nobody can read. What comes with it is told to the agent.
	errMalformed = errors.New("malformed message")
	// errFull: the messages that are being received take all the memory they may.
	errFull = errors.New("too many large messages are being received")
)

const (
	// small messages are not counted: their number is bounded by that of the connections.
	small = 64 << 10
	// large messages are decoded few at a time: decoded they can be 40 times as large.
	large = 1 << 20
)

// unframe takes the header off a WebSocket message (spec "WebSocket Message Format").
func unframe(frame []byte) ([]byte, error) {
	header, n := protowire.ConsumeVarint(frame)
	if n < 0 || header != 0 {
		return nil, fmt.Errorf("%w: the header is not 0", errMalformed)
	}
	return frame[n:], nil
}

// decode reads a message and checks what must hold for every one of them.
func (s *Server) decode(data []byte) (*protobufs.AgentToServer, uuid.UUID, error) {
	if len(data) > large {
		s.decoding <- struct{}{}
		defer func() { <-s.decoding }()
	}
	var m protobufs.AgentToServer
	if err := proto.Unmarshal(data, &m); err != nil {
		return nil, uuid.Nil, fmt.Errorf("%w: not an AgentToServer", errMalformed)
	}
	if len(m.InstanceUid) != len(uuid.UUID{}) {
		return nil, uuid.Nil, fmt.Errorf("%w: instance_uid has %d bytes, not 16", errMalformed, len(m.InstanceUid))
	}
	uid := uuid.UUID(m.InstanceUid)
	if uid == uuid.Nil {
		return nil, uuid.Nil, fmt.Errorf("%w: instance_uid is zero", errMalformed)
	}
	if err := modest(&m); err != nil {
		return nil, uuid.Nil, err
	}
	return &m, uid, nil
}

const (
	// maxHash bounds hashes, which are kept for each agent and in its events, and maxCustom its custom capabilities, all together.
	maxHash   = 256
	maxCustom = 16 << 10
)

// modest refuses what is kept in memory for as long as the agent is, and is far larger than any use of it.
func modest(m *protobufs.AgentToServer) error {
	for _, hash := range [...][]byte{
		m.GetRemoteConfigStatus().GetLastRemoteConfigHash(), m.GetConnectionSettingsStatus().GetLastConnectionSettingsHash(),
		m.GetPackageStatuses().GetServerProvidedAllPackagesHash(), m.GetAvailableComponents().GetHash(),
	} {
		if len(hash) > maxHash {
			return fmt.Errorf("%w: a hash of %d bytes, the limit is %d", errMalformed, len(hash), maxHash)
		}
	}
	size := 0
	for _, name := range m.GetCustomCapabilities().GetCapabilities() {
		size += len(name) + 16 // what an empty one takes, too
	}
	if size > maxCustom {
		return fmt.Errorf("%w: more than %d bytes of custom_capabilities", errMalformed, maxCustom)
	}
	return nil
}

// encode writes a message after prefix, unless it is larger than the limit.
func (s *Server) encode(prefix []byte, m *protobufs.ServerToAgent) ([]byte, error) {
	if int64(proto.Size(m)) > s.opts.MaxMessage {
		return nil, ErrTooLarge
	}
	return proto.MarshalOptions{}.MarshalAppend(prefix, m)
}

// buffers hold messages while they are received and decoded.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// receive reads all of r. Done gives back the buffer and what it counted for; the bytes are valid until then.
func (s *Server) receive(r io.Reader) (data []byte, done func(), err error) {
	b := buffers.Get().(*bytes.Buffer)
	b.Reset()
	counter := &countingReader{r: r, in: s}
	done = func() {
		s.inFlight.Add(-counter.counted)
		if b.Cap() <= small {
			buffers.Put(b)
		}
	}
	if _, err := b.ReadFrom(counter); err != nil {
		done()
		return nil, nil, err
	}
	return b.Bytes(), done, nil
}

// countingReader counts what is beyond small.
type countingReader struct {
	r             io.Reader
	in            *Server
	read, counted int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.read += int64(n)
	if over := c.read - small - c.counted; over > 0 {
		c.counted += over
		if c.in.inFlight.Add(over) > c.in.opts.MaxInFlight {
			return n, errFull
		}
	}
	return n, err
}
