package traffic

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"go.opentelemetry.io/collector/config/configcompression"
	"go.opentelemetry.io/collector/config/confighttp"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
)

const (
	protobufType = "application/x-protobuf"
	// maxResponse bounds what is read of an answer.
	maxResponse = 64 * 1024
)

// httpClient posts protobuf bodies. Every worker has at most one connection per endpoint.
type httpClient struct {
	client *http.Client
	urls   []string
}

func newHTTPClient(ctx context.Context, cfg LoadConfig) (*httpClient, error) {
	settings := confighttp.NewDefaultClientConfig()
	settings.TLS = clientTLS(cfg.TLS)
	settings.Headers = headerList(cfg.Headers)
	settings.Compression = configcompression.Type(cfg.Compression)
	settings.MaxIdleConns = cfg.Workers * len(cfg.Endpoints)
	settings.MaxIdleConnsPerHost = cfg.Workers
	client, err := settings.ToClient(ctx, nil, nopTelemetry(nil))
	if err != nil {
		return nil, fmt.Errorf("prepare HTTP client: %w", err)
	}
	scheme := "https://"
	if settings.TLS.Insecure {
		scheme = "http://"
	}
	c := &httpClient{client: client}
	for _, endpoint := range cfg.Endpoints {
		c.urls = append(c.urls, scheme+endpoint+"/v1/traces")
	}
	return c, nil
}

func (c *httpClient) export(ctx context.Context, endpoint int, request ptraceotlp.ExportRequest) outcome {
	body, err := request.MarshalProto()
	if err != nil {
		return outcome{code: "marshal", message: err.Error()}
	}
	post, err := http.NewRequestWithContext(ctx, http.MethodPost, c.urls[endpoint], bytes.NewReader(body))
	if err != nil {
		return outcome{code: codeConnect, message: err.Error()}
	}
	post.Header.Set("Content-Type", protobufType)
	answer, err := c.client.Do(post)
	if err != nil {
		return httpFailure(err)
	}
	defer func() { _ = answer.Body.Close() }() // reading it to the end has already told everything
	content, err := io.ReadAll(io.LimitReader(answer.Body, maxResponse))
	if err != nil {
		return httpFailure(err)
	}
	if answer.StatusCode < 200 || answer.StatusCode > 299 {
		return outcome{code: fmt.Sprintf("http %d", answer.StatusCode), answered: true, message: refusal(answer, content)}
	}
	response := ptraceotlp.NewExportResponse()
	if answer.Header.Get("Content-Type") == protobufType && len(content) > 0 {
		if err := response.UnmarshalProto(content); err != nil {
			return outcome{code: fmt.Sprintf("http %d unreadable", answer.StatusCode), answered: true, message: err.Error()}
		}
	}
	partial := response.PartialSuccess()
	return outcome{rejected: partial.RejectedSpans(), message: partial.ErrorMessage()}
}

func httpFailure(err error) outcome {
	out := outcome{code: codeReset, message: err.Error()}
	var op *net.OpError
	var timeout net.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout():
		out.code = codeDeadline
	case errors.As(err, &op) && op.Op == "dial":
		out.code = codeConnect
	}
	return out
}

// refusal is a message for people; a protobuf body is left out.
func refusal(answer *http.Response, content []byte) string {
	if strings.HasPrefix(answer.Header.Get("Content-Type"), "text/") {
		return answer.Status + ": " + strings.TrimSpace(string(content))
	}
	return answer.Status
}

func (c *httpClient) close() error {
	c.client.CloseIdleConnections()
	return nil
}
