package fleet

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"time"
	"unicode/utf8"
)

const (
	// MaxBody bounds the body of a configuration in bytes.
	MaxBody = 16 << 20
	// MaxPriority bounds priorities on both sides of zero.
	MaxPriority = 1_000_000
	maxName     = 128
)

// Configuration is a name with numbered versions, of which one is released.
type Configuration struct {
	Name string `json:"name"`
	// Latest is the number of the newest version; numbers begin with 1, have no gaps, and
	// go on if a deleted name comes again.
	Latest int `json:"latest"`
	// Released is the last version that was fully rolled out; zero before the first.
	Released  Release   `json:"released"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// Release is a version as it is given to agents.
type Release struct {
	// Version is the number of a version, 0 for none.
	Version int `json:"version"`
	// Salt becomes part of the hash of the sets it is in. It differs for a forced release, so that agents that refused the
	// same content look at it once more.
	Salt string `json:"salt,omitempty"`
}

// Version is one immutable version of a configuration. Selector and priority belong to it: to change them is to save a
// version, which touches no agent until it is rolled out.
type Version struct {
	Configuration string   `json:"configuration"`
	Number        int      `json:"number"`
	Selector      Selector `json:"selector"`
	// Priority orders an agent's files: a later one is merged over those before it. Equal ones go by name.
	Priority int `json:"priority"`
	// Body is kept byte for byte as it was written; Hash is its ContentHash.
	Body      []byte    `json:"-"`
	Hash      string    `json:"hash"`
	Author    string    `json:"author,omitempty"`
	CreatedAt time.Time `json:"created_at"`
}

// ContentHash is the SHA-256 of a body in hexadecimal digits.
func ContentHash(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}

var nameRule = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]*[a-z0-9])?(/[a-z0-9]([a-z0-9._-]*[a-z0-9])?)?$`)

// ValidateName checks a configuration's name: lower-case letters, digits, and inside of it ., _ and -. One slash may part it
// in two such names, as in the keys that an OpAMPBridge takes (namespace/name). 128 bytes at most.
func ValidateName(name string) error {
	if len(name) > maxName || !nameRule.MatchString(name) {
		return fmt.Errorf("%.200q is no name of a configuration: want 1 to %d of a-z, 0-9, and inside ., _, -, and at most one /",
			name, maxName)
	}
	return nil
}

// Validate checks what a person gives: name, priority, body. It returns all errors at once.
func (v *Version) Validate() error {
	errs := []error{ValidateName(v.Configuration)}
	if v.Priority < -MaxPriority || v.Priority > MaxPriority {
		errs = append(errs, fmt.Errorf("priority %d: want %d to %d", v.Priority, -MaxPriority, MaxPriority))
	}
	if len(v.Body) > MaxBody {
		errs = append(errs, fmt.Errorf("the body has %d bytes; the limit is %d", len(v.Body), MaxBody))
	}
	if !utf8.ValidString(v.Author) {
		errs = append(errs, errors.New("the author is not UTF-8"))
	}
	return errors.Join(errs...)
}
