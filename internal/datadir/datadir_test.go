package datadir

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestChoose(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		env  map[string]string
		root bool
		want string
	}{
		"root":              {map[string]string{"HOME": "/root", "XDG_STATE_HOME": "/x"}, true, "/var/lib/collie"},
		"named":             {map[string]string{"COLLIE_DATA_DIR": "/data", "HOME": "/home/a"}, false, "/data"},
		"named, root":       {map[string]string{"COLLIE_DATA_DIR": "/data"}, true, "/data"},
		"xdg":               {map[string]string{"XDG_STATE_HOME": "/x", "HOME": "/home/a"}, false, "/x/collie"},
		"relative xdg":      {map[string]string{"XDG_STATE_HOME": "x", "HOME": "/home/a"}, false, "/home/a/.local/state/collie"},
		"home":              {map[string]string{"HOME": "/home/a"}, false, "/home/a/.local/state/collie"},
		"home as elsewhere": {map[string]string{"USERPROFILE": "/users/a"}, false, "/users/a/.local/state/collie"},
		"nothing":           {nil, false, "/var/lib/collie"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, tt.want, choose(func(key string) string { return tt.env[key] }, tt.root))
		})
	}
}

func TestDefaultReadsTheEnvironment(t *testing.T) {
	t.Setenv(Variable, "/elsewhere")
	require.Equal(t, "/elsewhere", Default())
}
