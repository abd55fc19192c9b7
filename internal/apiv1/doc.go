// Package apiv1 is what the control plane's HTTP API says, as Go types: /api/v1, one type for each JSON document. The server
// encodes them and the client decodes them; nothing else is here. docs/api.md and the OpenAPI document describe the same.
//
// Times are RFC 3339, durations are Go duration strings ("30s"), absent times are left out.
package apiv1
