// Package statefile keeps small state on disk: written atomically and synced, with a checksum and a schema version, so that a
// torn or edited file is never believed; a damaged one is set aside to be looked at. What is in the state, and what to do
// without it, is the caller's matter.
package statefile

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// schemaVersion is of the envelope and of what is in it. A file of another version is set aside.
const schemaVersion = 1

// envelope is a state file: its content with a checksum, so that a torn or edited file is never believed.
type envelope struct {
	SchemaVersion int             `json:"schema_version"`
	SHA256        string          `json:"sha256"` // of the compact Payload, hex
	Payload       json.RawMessage `json:"payload"`
}

// ErrSetAside is returned when a state file was damaged, and has been renamed so that it can be looked at.
var ErrSetAside = errors.New("damaged state file set aside")

// Write replaces the state file at path: see Replace.
func Write(path string, payload any) error {
	content, err := json.Marshal(payload)
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	sum := sha256.Sum256(content)
	data, err := json.Marshal(envelope{SchemaVersion: schemaVersion, SHA256: hex.EncodeToString(sum[:]), Payload: content})
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	return Replace(path, data)
}

// Replace replaces the file at path by one with this content, mode 0600: written beside it, synced, renamed, and the folder
// synced. The folder is made when it is missing.
func Replace(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := writeSynced(path+".new", data); err != nil {
		return errors.Join(err, os.Remove(path+".new"))
	}
	if err := os.Rename(path+".new", path); err != nil {
		return errors.Join(err, os.Remove(path+".new"))
	}
	return SyncDir(filepath.Dir(path))
}

func writeSynced(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

// SyncDir makes a rename survive a power cut. Systems that cannot sync a folder say so with an error that changes nothing.
func SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	_ = d.Sync()
	return d.Close()
}

// Peek is Read that leaves a damaged file where it is.
func Peek(path string, payload any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := decode(data, payload); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// Read reads what Write has written. It returns fs.ErrNotExist when there is no file, and ErrSetAside, with the
// new name in its text, when there is one that cannot be believed.
func Read(path string, payload any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := decode(data, payload); err != nil {
		aside := fmt.Sprintf("%s.damaged-%s", path, time.Now().UTC().Format("20060102T150405.000"))
		if renameErr := os.Rename(path, aside); renameErr != nil {
			return errors.Join(err, renameErr)
		}
		return fmt.Errorf("%w as %s: %w", ErrSetAside, aside, err)
	}
	return nil
}

func decode(data []byte, payload any) error {
	var e envelope
	if err := json.Unmarshal(data, &e); err != nil {
		return fmt.Errorf("not a state file: %w", err)
	}
	if e.SchemaVersion != schemaVersion {
		return fmt.Errorf("schema version %d, want %d", e.SchemaVersion, schemaVersion)
	}
	if sum := sha256.Sum256(e.Payload); hex.EncodeToString(sum[:]) != e.SHA256 {
		return errors.New("checksum does not match")
	}
	if err := json.Unmarshal(e.Payload, payload); err != nil {
		return fmt.Errorf("decode payload: %w", err)
	}
	return nil
}
