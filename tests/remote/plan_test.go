package remote

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/plan"
	"github.com/collie-otel/collie/tests/harness"
)

// ask sends a plan and returns the answer, which comes over the same connection.
func (f *fleet) ask(id string, files map[string]string) plan.Answer {
	f.t.Helper()
	data, err := json.Marshal(plan.Request{ID: id, Files: files})
	require.NoError(f.t, err)
	f.sendPlan(data)
	return f.answer(id)
}

func (f *fleet) sendPlan(data []byte) {
	f.t.Helper()
	f.send(&protobufs.ServerToAgent{CustomMessage: &protobufs.CustomMessage{Capability: plan.Capability, Type: plan.TypePlan, Data: data}})
}

func (f *fleet) answer(id string) plan.Answer {
	f.t.Helper()
	var found plan.Answer
	harness.Await(f.t, 20*time.Second, "the answer to plan "+id, func() (bool, any) {
		answers := f.answers()
		for _, a := range answers {
			if a.ID == id {
				found = a
				return true, nil
			}
		}
		return false, fmt.Sprintf("%d answers", len(answers))
	})
	return found
}

func (f *fleet) answers() []plan.Answer {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []plan.Answer
	for _, m := range f.messages {
		if c := m.CustomMessage; c != nil && c.Capability == plan.Capability {
			var a plan.Answer
			require.Equal(f.t, plan.TypeAnswer, c.Type)
			require.NoError(f.t, json.Unmarshal(c.Data, &a))
			all = append(all, a)
		}
	}
	return all
}

// The agent says what it would do, with diff and reasons, and does nothing.
func TestPlan(t *testing.T) {
	t.Parallel()
	e := start(t, options{
		base: edited(t, "processors:\n", "processors:\n  attributes/secret: {actions: [{key: x, value: \"${env:APP_TOKEN}\", action: upsert}]}\n"),
		env:  map[string]string{"APP_TOKEN": "s3cr3t-value"},
	})
	e.awaitProcessors("batch")
	harness.Await(t, 10*time.Second, "the capability", func() (bool, any) {
		e.fleet.mu.Lock()
		defer e.fleet.mu.Unlock()
		for _, m := range e.fleet.messages {
			for _, c := range m.GetCustomCapabilities().GetCapabilities() {
				if c == plan.Capability {
					return true, nil
				}
			}
		}
		return false, "not announced"
	})
	log := len(e.collector.Log())

	accepted := e.fleet.ask("1", map[string]string{"": addAttribute, "b": "processors: {attributes/secret: {actions: [{key: y, value: \"${env:APP_TOKEN}\", action: upsert}]}}"})
	require.Equal(t, plan.Accepted, accepted.Outcome, accepted.Message)
	require.Contains(t, accepted.Diff, "+                - attributes/test\n")
	require.Contains(t, accepted.Effective, "pushed")
	require.NotContains(t, accepted.Effective+accepted.Diff, "s3cr3t-value")
	require.Contains(t, accepted.Effective, "[REDACTED]")

	unchanged := e.fleet.ask("2", map[string]string{})
	require.Equal(t, plan.Answer{ID: "2", Outcome: plan.Accepted, Effective: unchanged.Effective}, unchanged)
	require.YAMLEq(t, e.fleet.effectiveConfig(), unchanged.Effective)

	for id, c := range map[string]struct{ body, stage, message string }{
		"3": {"receivers: [", "merge", "line 1"},
		"4": {"service: {pipelines: {traces: {processors: [not_there]}}}", "dry run", "not_there"},
		"5": {"processors: {no_such: {}}", "dry run", "no_such"},
	} {
		refused := e.fleet.ask(id, map[string]string{"": c.body})
		require.Equal(t, plan.Refused, refused.Outcome)
		require.Equal(t, c.stage, refused.Stage)
		require.Contains(t, refused.Message, c.message)
	}

	for i := range 40 { // more than there may be
		data, err := json.Marshal(plan.Request{ID: fmt.Sprintf("many-%d", i), Files: map[string]string{"": addAttribute}})
		require.NoError(t, err)
		e.fleet.sendPlan(data)
	}
	harness.Await(t, 20*time.Second, "busy", func() (bool, any) {
		for _, a := range e.fleet.answers() {
			if a.Outcome == plan.Busy {
				return true, nil
			}
		}
		return false, len(e.fleet.answers())
	})
	e.fleet.sendPlan([]byte("{"))
	require.Contains(t, e.fleet.answer("").Message, "not JSON")

	require.NotContains(t, e.collector.Log()[log:], "Config updated")
	for _, w := range e.fleet.said() {
		require.Empty(t, w.hash, "a plan was reported as a configuration")
	}
	require.False(t, strings.Contains(e.fleet.effectiveConfig(), "pushed"))
	e.collector.Stop()
}
