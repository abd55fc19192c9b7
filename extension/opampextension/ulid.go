package opampextension

import (
	"strings"

	"github.com/google/uuid"
)

const (
	ulidLength   = 26
	ulidAlphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ" // Crockford's base 32
)

// parseULID reads 26 characters of 5 bits, of which the first has only 3.
func parseULID(text string) (uid uuid.UUID, ok bool) {
	if len(text) != ulidLength || text[0] > '7' {
		return uuid.Nil, false
	}
	for _, c := range strings.ToUpper(text) {
		digit := strings.IndexRune(ulidAlphabet, c)
		if digit < 0 {
			return uuid.Nil, false
		}
		carry := digit
		for i := len(uid) - 1; i >= 0; i-- { // uid = uid*32 + digit
			carry |= int(uid[i]) << 5
			uid[i] = byte(carry)
			carry >>= 8
		}
	}
	return uid, true
}
