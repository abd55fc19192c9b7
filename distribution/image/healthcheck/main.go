// Program healthcheck asks the Collector in the same container whether it is healthy: exit 0 when it answers 200.
//
//	healthcheck [HOST:PORT]
//
// Without an argument it asks where the shipped configurations listen: COLLIE_LISTEN (default 127.0.0.1) and
// COLLIE_HEALTH_PORT (default 13133). The image has no shell and no curl, so its HEALTHCHECK is this program; it speaks
// HTTP by hand, because net/http and fmt would make it three times as big.
package main

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"time"
)

const timeout = 2 * time.Second

func main() {
	address := addressOf(os.Args[1:], os.Getenv)
	if err := check(address, timeout); err != nil {
		_, _ = io.WriteString(os.Stderr, "healthcheck: "+address+": "+err.Error()+"\n")
		os.Exit(1)
	}
}

// addressOf is the host:port to ask. A wildcard is an address to listen on; the way to it is loopback.
func addressOf(args []string, getenv func(string) string) string {
	if len(args) > 0 {
		return args[0]
	}
	host := strings.Trim(getenv("COLLIE_LISTEN"), "[]")
	switch host {
	case "", "0.0.0.0":
		host = "127.0.0.1"
	case "::":
		host = "::1"
	}
	port := getenv("COLLIE_HEALTH_PORT")
	if port == "" {
		port = "13133"
	}
	return net.JoinHostPort(host, port)
}

// check fails unless a GET of / is answered with status 200 in time.
func check(address string, timeout time.Duration) error {
	conn, err := net.DialTimeout("tcp", address, timeout)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	// HTTP/1.0: the server closes the connection and sends no chunks.
	if _, err := io.WriteString(conn, "GET / HTTP/1.0\r\nHost: "+address+"\r\nUser-Agent: collie-healthcheck\r\n\r\n"); err != nil {
		return err
	}
	line, err := bufio.NewReader(io.LimitReader(conn, 1024)).ReadString('\n')
	if err != nil {
		return errors.New("no answer in HTTP: " + err.Error())
	}
	// "HTTP/1.0 200 OK"
	line = strings.TrimSpace(line)
	version, status, _ := strings.Cut(line, " ")
	if code, _, _ := strings.Cut(status, " "); !strings.HasPrefix(version, "HTTP/1.") || code != "200" {
		return errors.New("not healthy: " + line)
	}
	return nil
}
