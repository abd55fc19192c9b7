package packages

import (
	"context"
	"errors"
	"io"
)

// supported: a running executable cannot be replaced by a rename.
const supported = false

func command(context.Context, string, []string, []string, io.Writer) error {
	return errors.ErrUnsupported
}
