package reload

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// That a reload of a real Collector is told from its end is shown by receiver/steadyotlpreceiver.
func TestOutsideOfAReloadTheProcessEndsUnlessAnotherRunIsExpected(t *testing.T) {
	require.False(t, GoesOn())
	Expect(true)
	t.Cleanup(func() { Expect(false) })
	require.True(t, GoesOn())
	Expect(false)
	require.False(t, GoesOn())
}
