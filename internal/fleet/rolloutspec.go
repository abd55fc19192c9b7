package fleet

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// DefaultSoak is how long each wave is watched after its agents have applied.
	DefaultSoak = 30 * time.Second
	// DefaultTimeout is how long an agent that was offered a version may go without applying it.
	DefaultTimeout = 5 * time.Minute
	maxWaves       = 100
)

// RolloutSpec is how a version goes out. The zero value is one wave of everything without soak.
type RolloutSpec struct {
	// Canary is the first wave; zero for none.
	Canary Amount `json:"canary"`
	// Waves are percentages of all agents concerned that have the version at the end of each wave, increasing. 100 is appended if
	// it is not there.
	Waves []int `json:"waves,omitempty"`
	// Soak is how long a wave must stay good before the next one begins.
	Soak time.Duration `json:"soak"`
	// Timeout is how long an agent may take to apply; zero is DefaultTimeout.
	Timeout time.Duration `json:"timeout"`
	// MaxFailures is how many agents may fail. One more, and everything goes back.
	MaxFailures int `json:"max_failures"`
	// Force offers the version also to agents on which the same content failed before.
	Force bool `json:"force,omitempty"`
}

// Amount is a number of agents or a percentage of them.
type Amount struct {
	Count   int `json:"count,omitempty"`
	Percent int `json:"percent,omitempty"`
}

// ParseAmount reads "3" or "10%". The empty text is no agents.
func ParseAmount(text string) (Amount, error) {
	if text == "" {
		return Amount{}, nil
	}
	number, percent := strings.CutSuffix(text, "%")
	n, err := strconv.Atoi(number)
	if err != nil || n < 0 || percent && n > 100 {
		return Amount{}, fmt.Errorf(`%.50q: want a number of agents or a percentage, like "3" or "10%%"`, text)
	}
	if percent {
		return Amount{Percent: n}, nil
	}
	return Amount{Count: n}, nil
}

// String is what ParseAmount reads.
func (a Amount) String() string {
	if a.Percent > 0 {
		return strconv.Itoa(a.Percent) + "%"
	}
	return strconv.Itoa(a.Count)
}

// of is the number of agents among total, rounded up.
func (a Amount) of(total int) int {
	if a.Percent > 0 {
		return (a.Percent*total + 99) / 100
	}
	return min(a.Count, total)
}

// Validate reports all errors at once.
func (s *RolloutSpec) Validate() error {
	var errs []error
	if s.Canary.Count < 0 || s.Canary.Percent < 0 || s.Canary.Percent > 100 || s.Canary.Count > 0 && s.Canary.Percent > 0 {
		errs = append(errs, errors.New("canary: want a number of agents, or 0% to 100%"))
	}
	if len(s.Waves) > maxWaves {
		errs = append(errs, fmt.Errorf("waves: %d; the limit is %d", len(s.Waves), maxWaves))
	}
	for i, w := range s.Waves {
		if w < 1 || w > 100 || i > 0 && w <= s.Waves[i-1] {
			errs = append(errs, fmt.Errorf("waves: %d%%: want percentages from 1%% to 100%%, each more than the one before", w))
		}
	}
	if s.Soak < 0 || s.Timeout < 0 || s.MaxFailures < 0 {
		errs = append(errs, errors.New("soak, timeout, max_failures: want none below zero"))
	}
	return errors.Join(errs...)
}

// steps are the waves with the canary before them and everything at the end.
func (s *RolloutSpec) steps() []Amount {
	var steps []Amount
	if s.Canary != (Amount{}) {
		steps = append(steps, s.Canary)
	}
	for _, w := range s.Waves {
		steps = append(steps, Amount{Percent: w})
	}
	if !slices.Contains(s.Waves, 100) {
		steps = append(steps, Amount{Percent: 100})
	}
	return steps
}

// WavesTotal is the number of all waves, the canary included.
func (s *RolloutSpec) WavesTotal() int { return len(s.steps()) }
