package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/collie-otel/collie/internal/statefile"
)

// identityFile is the name of the state file that keeps the instance UID.
const identityFile = "identity.json"

// storedIdentity is its content.
type storedIdentity struct {
	// InstanceUID is what the agent is known by.
	InstanceUID uuid.UUID `json:"instance_uid"`
	// Configured is the configured UID at the time it was stored: a server-assigned UID holds until somebody
	// configures another one. Zero when none was configured.
	Configured uuid.UUID `json:"configured"`
}

// identity is who the agent is, and where that is kept.
type identity struct {
	directory  string
	configured uuid.UUID
	uid        uuid.UUID
	temporary  bool // could not be stored: the server is asked for one (spec: RequestInstanceUid)
}

// loadIdentity finds the instance UID: assigned by the server, else configured, else stored, else a new UUIDv7 that is stored.
// It fails only when the system has no randomness; a storage that cannot be used makes the identity temporary.
func loadIdentity(opts Options) (*identity, error) {
	configured, log := opts.InstanceUID, opts.Logger
	id := &identity{directory: opts.StorageDirectory, configured: configured}
	var stored storedIdentity
	switch err := statefile.Read(id.path(), &stored); {
	case err == nil && stored.Configured == configured && stored.InstanceUID != uuid.Nil:
		id.uid = stored.InstanceUID
		return id, nil
	case errors.Is(err, statefile.ErrSetAside):
		log.Error("The stored identity was damaged; this agent takes a new one unless one is configured.", zap.Error(err))
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		log.Warn("The stored identity cannot be read.", zap.Error(err))
	}
	if id.uid = configured; configured != uuid.Nil {
		return id, nil
	}
	if id.uid = opts.NewInstanceUID; id.uid == uuid.Nil {
		uid, err := uuid.NewV7()
		if err != nil {
			return nil, fmt.Errorf("generate an instance UID: %w", err)
		}
		id.uid = uid
	}
	if err := id.store(); err != nil {
		id.temporary = true
		log.Warn("The instance UID cannot be stored: it is asked from the server, and new at each start. Set storage::directory or instance_uid.", zap.Error(err))
	}
	return id, nil
}

// InstanceUID looks for the UID that an agent with this storage and this configured UID will have; the zero UUID says that
// it will be a new one. It changes nothing.
func InstanceUID(directory string, configured uuid.UUID) uuid.UUID {
	var stored storedIdentity
	if err := statefile.Peek(filepath.Join(directory, identityFile), &stored); err == nil && stored.Configured == configured {
		return stored.InstanceUID
	}
	return configured
}

// assign takes the UID that the server wants and stores it; the error says that it holds for this process only.
func (id *identity) assign(uid uuid.UUID) error {
	id.uid, id.temporary = uid, false
	return id.store()
}

func (id *identity) store() error {
	return statefile.Write(id.path(), storedIdentity{InstanceUID: id.uid, Configured: id.configured})
}

func (id *identity) path() string { return filepath.Join(id.directory, identityFile) }
