package swarm

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/protobufs"
	"google.golang.org/protobuf/proto"

	"github.com/collie-otel/collie/internal/plan"
)

// handle does what a message of the server says. An error ends the connection.
func (a *agent) handle(frame []byte) error {
	counters := &a.swarm.counters
	counters.Received.Add(1)
	var m protobufs.ServerToAgent
	if len(frame) == 0 || frame[0] != 0 {
		counters.Malformed.Add(1)
		return fmt.Errorf("a message of %d bytes without header", len(frame))
	}
	if err := proto.Unmarshal(frame[1:], &m); err != nil {
		counters.Malformed.Add(1)
		return err
	}
	if m.ErrorResponse != nil {
		return a.refused(m.ErrorResponse)
	}
	if m.Command != nil { // everything else in the message is to be ignored
		counters.Restarts.Add(1)
		return errRestart
	}
	if err := a.identify(&m); err != nil {
		return err
	}
	if m.RemoteConfig != nil {
		if err := a.offered(m.RemoteConfig); err != nil {
			return err
		}
	}
	return a.custom(m.CustomMessage)
}

// identify reports everything, if that is asked for or if the agent has a new name to report it under.
func (a *agent) identify(m *protobufs.ServerToAgent) error {
	id, err := uuid.FromBytes(m.GetAgentIdentification().GetNewInstanceUid())
	switch {
	case err == nil:
		a.swarm.counters.Renamed.Add(1)
		a.mu.Lock()
		a.uid = id
		a.mu.Unlock()
	case m.Flags&uint64(protobufs.ServerToAgentFlags_ServerToAgentFlags_ReportFullState) != 0:
		a.swarm.counters.FullState.Add(1)
	default:
		return nil
	}
	return a.send(a.complete)
}

func (a *agent) refused(e *protobufs.ServerErrorResponse) error {
	if e.Type == protobufs.ServerErrorResponseType_ServerErrorResponseType_Unavailable {
		a.swarm.counters.Unavailable.Add(1)
		return &refusal{e.ErrorMessage, time.Duration(e.GetRetryInfo().GetRetryAfterNanoseconds())}
	}
	a.swarm.counters.BadRequests.Add(1)
	return nil
}

// offered takes a configuration: APPLYING, then what Apply makes of it. One that it has judged already it only reports again.
func (a *agent) offered(offer *protobufs.AgentRemoteConfig) error {
	counters := &a.swarm.counters
	counters.Offers.Add(1)
	a.mu.Lock()
	same := string(a.status.LastRemoteConfigHash) == string(offer.ConfigHash)
	a.mu.Unlock()
	if same {
		counters.RepeatedOffers.Add(1)
		return a.report(a.status, nil)
	}
	status := &protobufs.RemoteConfigStatus{LastRemoteConfigHash: offer.ConfigHash, Status: protobufs.RemoteConfigStatuses_RemoteConfigStatuses_APPLYING}
	if err := a.report(status, nil); err != nil {
		return err
	}
	files := map[string][]byte{}
	for name, file := range offer.GetConfig().GetConfigMap() {
		files[name] = file.GetBody()
	}
	if err := a.swarm.config.Apply(a.index, files); err != nil {
		counters.Failed.Add(1)
		return a.report(&protobufs.RemoteConfigStatus{
			LastRemoteConfigHash: offer.ConfigHash, Status: protobufs.RemoteConfigStatuses_RemoteConfigStatuses_FAILED, ErrorMessage: err.Error(),
		}, nil)
	}
	counters.Applied.Add(1)
	return a.report(&protobufs.RemoteConfigStatus{LastRemoteConfigHash: offer.ConfigHash, Status: protobufs.RemoteConfigStatuses_RemoteConfigStatuses_APPLIED},
		a.swarm.texts.of(a.index, string(offer.ConfigHash), files))
}

// report says a new status, and, unless nil, what runs now.
func (a *agent) report(status *protobufs.RemoteConfigStatus, text []byte) error {
	return a.send(func(m *protobufs.AgentToServer) {
		a.status, m.RemoteConfigStatus = status, status
		if text != nil {
			a.text, m.EffectiveConfig = text, effective(text)
		}
	})
}

// custom answers plans; nothing else was announced.
func (a *agent) custom(m *protobufs.CustomMessage) error {
	if m == nil || m.Capability != plan.Capability || m.Type != plan.TypePlan {
		return nil
	}
	a.swarm.counters.Plans.Add(1)
	answer, err := a.judge(m.Data).Encode()
	if err != nil {
		return err
	}
	return a.send(func(m *protobufs.AgentToServer) {
		m.CustomMessage = &protobufs.CustomMessage{Capability: plan.Capability, Type: plan.TypeAnswer, Data: answer}
	})
}

func (a *agent) judge(data []byte) plan.Answer {
	r, err := plan.ParseRequest(data)
	if err != nil {
		var head struct{ ID string }
		_ = json.Unmarshal(data, &head)
		return plan.Answer{ID: head.ID, Outcome: plan.Invalid, Message: err.Error()}
	}
	if a.swarm.config.PlanAnswer != nil {
		return a.swarm.config.PlanAnswer(a.index, r)
	}
	files := map[string][]byte{}
	for name, body := range r.Files {
		files[name] = []byte(body)
	}
	a.mu.Lock()
	running := string(a.text)
	a.mu.Unlock()
	return plan.Compare(r.ID, running, string(together(a.swarm.texts.base[a.index%variants], files)))
}
