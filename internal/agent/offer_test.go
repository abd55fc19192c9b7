package agent

import (
	"strings"
	"testing"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"
)

func TestMerged(t *testing.T) {
	t.Parallel()
	before := Offer{
		Endpoint: "wss://one", Headers: map[string]string{"a": "b"}, Interval: time.Minute,
		TLS: &OfferedTLS{CA: "ca"}, Proxy: &OfferedProxy{URL: "http://p"}, Certificate: &OfferedCertificate{"cert", "key"},
	}
	for name, tt := range map[string]struct {
		message *protobufs.OpAMPConnectionSettings
		want    func(o *Offer)
	}{
		"nothing":             {&protobufs.OpAMPConnectionSettings{}, func(*Offer) {}},
		"interval":            {&protobufs.OpAMPConnectionSettings{HeartbeatIntervalSeconds: 5}, func(o *Offer) { o.Interval = 5 * time.Second }},
		"interval of an age":  {&protobufs.OpAMPConnectionSettings{HeartbeatIntervalSeconds: 1 << 63}, func(o *Offer) { o.Interval = time.Hour }},
		"endpoint":            {&protobufs.OpAMPConnectionSettings{DestinationEndpoint: "wss://two"}, func(o *Offer) { o.Endpoint, o.Certificate = "wss://two", nil }},
		"headers":             {&protobufs.OpAMPConnectionSettings{Headers: &protobufs.Headers{}}, func(o *Offer) { o.Headers, o.Certificate = map[string]string{}, nil }},
		"tls":                 {&protobufs.OpAMPConnectionSettings{Tls: &protobufs.TLSConnectionSettings{MinVersion: "1.3"}}, func(o *Offer) { o.TLS, o.Certificate = &OfferedTLS{MinVersion: "1.3"}, nil }},
		"proxy":               {&protobufs.OpAMPConnectionSettings{Proxy: &protobufs.ProxyConnectionSettings{Url: "p:1"}}, func(o *Offer) { o.Proxy, o.Certificate = &OfferedProxy{"p:1", map[string]string{}}, nil }},
		"proxy without a URL": {&protobufs.OpAMPConnectionSettings{Proxy: &protobufs.ProxyConnectionSettings{}}, func(o *Offer) { o.Certificate = nil }},
		"certificate": {&protobufs.OpAMPConnectionSettings{Certificate: &protobufs.TLSCertificate{Cert: []byte("c"), PrivateKey: []byte("k"), CaCert: []byte("ca")}}, func(o *Offer) {
			o.Certificate = &OfferedCertificate{"c", "k"}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := before
			tt.want(&want)
			require.Equal(t, want, before.merged(tt.message))
		})
	}
}

func TestCheckOffer(t *testing.T) {
	t.Parallel()
	secure, plain := Settings{Endpoint: "wss://a", Trusted: true}, Settings{Endpoint: "ws://a"}
	ca := &protobufs.TLSConnectionSettings{CaPemContents: "PEM"}
	for name, tt := range map[string]struct {
		message *protobufs.OpAMPConnectionSettings
		over    Settings
		refused string
	}{
		"other host":                          {&protobufs.OpAMPConnectionSettings{DestinationEndpoint: "wss://b"}, secure, ""},
		"other transport":                     {&protobufs.OpAMPConnectionSettings{DestinationEndpoint: "https://b"}, secure, ""},
		"wss to ws":                           {&protobufs.OpAMPConnectionSettings{DestinationEndpoint: "ws://b"}, secure, "give up TLS"},
		"https to http":                       {&protobufs.OpAMPConnectionSettings{DestinationEndpoint: "http://a"}, Settings{Endpoint: "https://a"}, "give up TLS"},
		"WSS to ws":                           {&protobufs.OpAMPConnectionSettings{DestinationEndpoint: "ws://a"}, Settings{Endpoint: "WSS://a"}, "give up TLS"},
		"ws to wss":                           {&protobufs.OpAMPConnectionSettings{DestinationEndpoint: "wss://a"}, plain, ""},
		"ws to ws":                            {&protobufs.OpAMPConnectionSettings{DestinationEndpoint: "ws://b"}, plain, ""},
		"credentials":                         {&protobufs.OpAMPConnectionSettings{DestinationEndpoint: "wss://u:s3cr3t@b"}, secure, "credentials"},
		"no URL":                              {&protobufs.OpAMPConnectionSettings{DestinationEndpoint: "wss://s3cr3t\x00"}, secure, "not a URL"},
		"CA":                                  {&protobufs.OpAMPConnectionSettings{Tls: ca}, secure, ""},
		"CA from anybody":                     {&protobufs.OpAMPConnectionSettings{Tls: ca}, plain, "verified TLS"},
		"CA from a server nobody vouches for": {&protobufs.OpAMPConnectionSettings{Tls: ca}, Settings{Endpoint: "wss://a"}, "verified TLS"},
		"system CAs from anybody":             {&protobufs.OpAMPConnectionSettings{Tls: &protobufs.TLSConnectionSettings{IncludeSystemCaCertsPool: true}}, plain, "verified TLS"},
		"huge":                                {&protobufs.OpAMPConnectionSettings{Tls: &protobufs.TLSConnectionSettings{CaPemContents: strings.Repeat("x", 2<<20)}}, secure, "bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := checkOffer(tt.message, tt.over)
			if tt.refused == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, tt.refused)
			require.NotContains(t, err.Error(), "s3cr3t")
		})
	}
}
