package packages

import (
	"bytes"
	"strings"

	"github.com/open-telemetry/opamp-go/protobufs"
)

// stage is how far an installation has come. It is on disk before anything of that stage is done.
type stage string

const (
	idle        stage = ""
	downloading stage = "downloading" // nothing but the staging folder is touched
	checking    stage = "checking"    // a copy lies beside the executable, and is run
	swapping    stage = "swapping"    // the executable is Record.Old or Offered.Content; the latter is on trial
	reverting   stage = "reverting"   // the executable is Offered.Content or Record.Old; the latter is the end
)

// status abbreviates the protocol's.
type status = protobufs.PackageStatusEnum

const (
	statusInstalled   = protobufs.PackageStatusEnum_PackageStatusEnum_Installed
	statusPending     = protobufs.PackageStatusEnum_PackageStatusEnum_InstallPending
	statusInstalling  = protobufs.PackageStatusEnum_PackageStatusEnum_Installing
	statusFailed      = protobufs.PackageStatusEnum_PackageStatusEnum_InstallFailed
	statusDownloading = protobufs.PackageStatusEnum_PackageStatusEnum_Downloading
)

const (
	maxFailures = 32   // failed packages that are remembered; the oldest is forgotten
	maxMessage  = 2048 // bytes of an error message
)

// record is the state file. It holds no URL and no header.
type record struct {
	AllHash []byte    `json:"all_packages_hash,omitempty"` // of the last offer
	Stage   stage     `json:"stage,omitempty"`
	Offered *identity `json:"offered,omitempty"`   // the package that Stage, Status and Error are about
	Has     *identity `json:"installed,omitempty"` // what an offer has installed
	// Replaced is the SHA-256 of the executable that Has has replaced.
	Replaced []byte    `json:"replaced,omitempty"`
	Old      []byte    `json:"old,omitempty"`    // SHA-256 of the executable that is being replaced
	ETag     string    `json:"etag,omitempty"`   // of the partial download
	Tries    int       `json:"tries,omitempty"`  // of running Offered dry
	Starts   int       `json:"starts,omitempty"` // of Offered on trial
	Reason   string    `json:"reason,omitempty"` // why it is reverted
	Status   status    `json:"status"`
	Error    string    `json:"error,omitempty"`
	Refused  []refusal `json:"refused,omitempty"` // other packages of the last offer
	Unfit    string    `json:"unfit,omitempty"`   // what was wrong with the last offer as a whole
	Failures []failure `json:"failures,omitempty"`
}

// identity says which package it is.
type identity struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Hash    []byte `json:"hash"`    // the server's, opaque
	Content []byte `json:"content"` // SHA-256 of the file
}

// refusal is a package that is none of ours.
type refusal struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Hash    []byte `json:"hash"`
	Error   string `json:"error"`
}

// failure is a package that is not tried again.
type failure struct {
	Hash  []byte `json:"hash"`
	Error string `json:"error"`
}

// sound makes a record usable that was written by another version or by hand: a stage without a package is none.
func (r *record) sound() {
	switch r.Stage {
	case downloading, checking, swapping, reverting:
	default:
		r.Stage = idle
	}
	if r.Offered == nil {
		r.Stage = idle
		if r.Status != statusFailed {
			r.Status = statusInstalled
		}
	}
	if _, known := protobufs.PackageStatusEnum_name[int32(r.Status)]; !known {
		r.Status = statusFailed
	}
}

// end finishes an installation.
func (r *record) end(s status, message string) {
	r.Stage, r.Status, r.Error = idle, s, clip(message)
	r.Old, r.Starts, r.Reason = nil, 0, ""
}

// condemn remembers that the offered package failed.
func (r *record) condemn(message string) {
	if r.failureOf(r.Offered.Hash) == nil {
		r.Failures = append(r.Failures, failure{Hash: r.Offered.Hash, Error: clip(message)})
	}
	r.Failures = r.Failures[max(0, len(r.Failures)-maxFailures):]
}

func (r *record) failureOf(hash []byte) *failure {
	for i := range r.Failures {
		if bytes.Equal(r.Failures[i].Hash, hash) {
			return &r.Failures[i]
		}
	}
	return nil
}

// clip makes a text fit for a message to the server, whatever a program has printed.
func clip(text string) string {
	text = strings.ToValidUTF8(strings.TrimSpace(text), "?")
	if len(text) > maxMessage {
		text = strings.ToValidUTF8(text[:maxMessage], "") + " ..."
	}
	return text
}

// build makes the complete statuses of what is recorded. version and has are of the running executable; details only
// count while a download runs.
func (r *record) build(version string, has []byte, details *protobufs.PackageDownloadDetails) *protobufs.PackageStatuses {
	own := &protobufs.PackageStatus{Name: Name, AgentHasVersion: version, AgentHasHash: has, Status: r.Status}
	if r.Offered != nil {
		own.Name, own.ServerOfferedVersion, own.ServerOfferedHash = r.Offered.Name, r.Offered.Version, r.Offered.Hash
	}
	switch r.Status {
	case statusFailed, statusPending:
		own.ErrorMessage = r.Error
	case statusDownloading:
		own.DownloadDetails = details
	}
	all := &protobufs.PackageStatuses{
		Packages: map[string]*protobufs.PackageStatus{}, ServerProvidedAllPackagesHash: r.AllHash, ErrorMessage: r.Unfit,
	}
	for _, other := range r.Refused {
		all.Packages[other.Name] = &protobufs.PackageStatus{
			Name: other.Name, ServerOfferedVersion: other.Version, ServerOfferedHash: other.Hash,
			Status: statusFailed, ErrorMessage: other.Error,
		}
	}
	if refused := all.Packages[own.Name]; refused != nil { // ours, in an offer that was refused as a whole
		refused.AgentHasVersion, refused.AgentHasHash = version, has
	} else {
		all.Packages[own.Name] = own
	}
	return all
}
