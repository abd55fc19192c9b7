package main

import (
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAddressOf(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		args []string
		env  map[string]string
		want string
	}{
		"nothing set":         {want: "127.0.0.1:13133"},
		"argument":            {args: []string{"10.0.0.7:1"}, env: map[string]string{"COLLIE_HEALTH_PORT": "2"}, want: "10.0.0.7:1"},
		"wildcard":            {env: map[string]string{"COLLIE_LISTEN": "0.0.0.0"}, want: "127.0.0.1:13133"},
		"wildcard of IPv6":    {env: map[string]string{"COLLIE_LISTEN": "[::]"}, want: "[::1]:13133"},
		"an address of IPv6":  {env: map[string]string{"COLLIE_LISTEN": "[fd00::1]"}, want: "[fd00::1]:13133"},
		"an address and port": {env: map[string]string{"COLLIE_LISTEN": "10.1.2.3", "COLLIE_HEALTH_PORT": "99"}, want: "10.1.2.3:99"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, tc.want, addressOf(tc.args, func(key string) string { return tc.env[key] }))
		})
	}
}

func TestCheckReadsTheStatus(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		status int
		want   string
	}{
		"healthy":       {status: http.StatusOK},
		"unavailable":   {status: http.StatusServiceUnavailable, want: "not healthy: HTTP/1.0 503 Service Unavailable"},
		"another thing": {status: http.StatusNotFound, want: "404"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/" || r.Method != http.MethodGet {
					w.WriteHeader(http.StatusTeapot)
					return
				}
				w.WriteHeader(tc.status)
			}))
			t.Cleanup(server.Close)
			err := check(server.Listener.Addr().String(), timeout)
			if tc.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, tc.want)
		})
	}
}

func TestCheckFailsWithoutACollector(t *testing.T) {
	t.Parallel()
	listen := func(t *testing.T, serve func(net.Conn)) string {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		t.Cleanup(func() { _ = listener.Close() })
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				serve(conn)
			}
		}()
		return listener.Addr().String()
	}
	for name, tc := range map[string]struct {
		address func(t *testing.T) string
		want    string
	}{
		"nobody listens": {func(t *testing.T) string {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			require.NoError(t, listener.Close())
			return listener.Addr().String()
		}, "connection refused"},
		"another protocol": {func(t *testing.T) string {
			return listen(t, func(c net.Conn) { _, _ = c.Write([]byte("SSH-2.0 200 \r\n")); _ = c.Close() })
		}, "not healthy: SSH-2.0"},
		"closes at once": {func(t *testing.T) string { return listen(t, func(c net.Conn) { _ = c.Close() }) }, "HTTP"},
		"hangs":          {func(t *testing.T) string { return listen(t, func(net.Conn) {}) }, "timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.ErrorContains(t, check(tc.address(t), 200*time.Millisecond), tc.want)
		})
	}
}
