package opampextension

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRestartsGather(t *testing.T) {
	t.Parallel()
	e := &opampExtension{restarts: make(chan struct{}, 1)}
	for range 3 { // would block for ever if one that waits were not enough
		e.wantRestart()
	}
	require.Len(t, e.restarts, 1)
}
