package packages

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
)

// maxRedirects is what browsers and net/http allow, too.
const maxRedirects = 10

// get asks for the file from offset on and follows redirects. It does not use http.Client: that one sends the offered headers and
// the Referer, with the URL's query, to other hosts, and quotes URLs in its errors.
func (d *download) get(ctx context.Context, offset int64) (*http.Response, error) {
	target := d.source
	for range maxRedirects + 1 {
		req, err := d.request(ctx, target, offset)
		if err != nil {
			return nil, err
		}
		resp, err := d.transport.RoundTrip(req)
		if err != nil {
			return nil, transient{error: err}
		}
		switch resp.StatusCode {
		case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
			_ = resp.Body.Close()
		default:
			return resp, nil
		}
		if target, err = redirected(target, resp.Header.Get("Location")); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("the download server redirected more than %d times", maxRedirects)
}

func (d *download) request(ctx context.Context, target *url.URL, offset int64) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return nil, errors.New("the download URL cannot be used")
	}
	if target.Scheme == d.source.Scheme && target.Host == d.source.Host {
		req.Header = d.headers.Clone()
	}
	if password, _ := target.User.Password(); target.User != nil && req.Header.Get("Authorization") == "" {
		req.SetBasicAuth(target.User.Username(), password)
	}
	req.Header.Set("Accept-Encoding", "identity") // ranges are of the file, and so is the hash
	req.Header.Del("Range")
	req.Header.Del("If-Range")
	if offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
		if d.etag != "" {
			req.Header.Set("If-Range", d.etag)
		}
	}
	return req, nil
}

func redirected(from *url.URL, location string) (*url.URL, error) {
	to, err := from.Parse(location)
	if err != nil || location == "" || to.Host == "" {
		return nil, errors.New("the download server redirected to something that is no URL")
	}
	if to.Scheme != "https" && to.Scheme != from.Scheme {
		return nil, fmt.Errorf("the download server redirected from %s to %s", from.Scheme, to.Scheme)
	}
	return to, nil
}

// redact leaves what may stand in a log of a URL: no user, no query, no fragment.
func redact(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}
