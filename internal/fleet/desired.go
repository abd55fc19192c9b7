package fleet

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
)

// Placement is a version as it is given to agents: the version itself, and the salt of its Release. Without a version, none is.
type Placement struct {
	Version *Version
	Salt    string
}

// Deployment is one configuration with the versions in force.
type Deployment struct {
	// Released is what agents get by default: the last version fully rolled out.
	Released Placement
	// Rollout is the unfinished rollout of the configuration, nil if there is none, and Next the version it brings.
	Rollout *Rollout
	Next    Placement
}

// File is a file of an agent's remote configuration.
type File struct {
	// Name is the key in AgentConfigMap. Agents merge files in the order of their names.
	Name          string
	Configuration string
	Version       int
	Body          []byte
}

// DesiredSet is what an agent should run.
type DesiredSet struct {
	Files []File
	// Hash is the same for the same names, bodies and salts. It is empty where nothing is desired: there are no files, and the
	// agent was never offered any, or is an OpAMPBridge, which would delete what it has.
	Hash string
	// Forced says that an unfinished rollout by force gives one of them.
	Forced bool
}

// Reaches says whether any version in force concerns an agent with these attributes, the one before or the one to come.
func (d *Deployment) Reaches(attributes map[string]string) bool {
	for _, p := range []Placement{d.Released, d.Next} {
		if p.Version != nil && p.Version.Selector.Matches(attributes) {
			return true
		}
	}
	return false
}

// Desired is the set of files that the agent should run now: of each configuration the version that the agent gets, if that
// version's selector matches it, in order of priority and then name.
func Desired(agent *Agent, deployments []Deployment) DesiredSet {
	return desired(agent, deployments, "")
}

// DesiredIf is what Desired will be once the rollout has given its version to the agent.
func DesiredIf(agent *Agent, deployments []Deployment, rollout string) DesiredSet {
	return desired(agent, deployments, rollout)
}

func desired(agent *Agent, deployments []Deployment, assumed string) DesiredSet {
	attributes := agent.Attributes()
	var set DesiredSet
	var placed []Placement
	for i := range deployments {
		d := &deployments[i]
		p, forced := d.Released, false
		if d.Rollout != nil && (d.Rollout.Gives(agent.UID) || assumed != "" && d.Rollout.ID == assumed) {
			p, forced = d.Next, d.Rollout.Spec.Force
		}
		if p.Version != nil && p.Version.Selector.Matches(attributes) {
			placed = append(placed, p)
			set.Forced = set.Forced || forced
		}
	}
	slices.SortFunc(placed, func(a, b Placement) int {
		return cmp.Or(cmp.Compare(a.Version.Priority, b.Version.Priority),
			cmp.Compare(a.Version.Configuration, b.Version.Configuration))
	})
	set.Files = make([]File, 0, len(placed))
	for i, p := range placed {
		set.Files = append(set.Files, File{
			Name: fileName(agent, i, p.Version), Configuration: p.Version.Configuration, Version: p.Version.Number, Body: p.Version.Body,
		})
	}
	if len(set.Files) > 0 || agent.RemoteConfig.OfferedHash != "" && !agent.IsBridge() {
		set.Hash = setHash(set.Files, placed)
	}
	return set
}

// fileName encodes the order, because agents merge by name. An OpAMPBridge takes each file for the resource of that name, so it
// gets the configuration's name alone.
func fileName(agent *Agent, position int, v *Version) string {
	if agent.IsBridge() {
		return v.Configuration
	}
	return fmt.Sprintf("%04d-%s", position, v.Configuration)
}

// setHash hashes names, content hashes and salts, each with its length before it: no two sets read the same. It does not read
// the bodies.
func setHash(files []File, placed []Placement) string {
	h := sha256.New()
	for i, f := range files {
		for _, part := range []string{f.Name, placed[i].Version.Hash, placed[i].Salt} {
			var size [8]byte
			binary.BigEndian.PutUint64(size[:], uint64(len(part)))
			h.Write(size[:])
			h.Write([]byte(part))
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}
