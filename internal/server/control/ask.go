package control

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/protobufs"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/plan"
	"github.com/collie-otel/collie/internal/server/opampserver"
)

const (
	// asked bounds the questions without an answer yet, so that neither the server nor a gateway is flooded.
	asked = 256
	// answerLimit is how long an agent may take over WebSocket; over HTTP it is asked with its next poll.
	answerLimit     = 15 * time.Second
	answerLimitHTTP = 75 * time.Second
	// askAgainAfter is when an agent is asked again that was busy.
	askAgainAfter = time.Second
)

// question is what one agent is asked.
type question struct {
	uid   uuid.UUID
	http  bool
	files map[string]string
	// due is when the next thing happens: the question, or giving up on the answer.
	due   time.Time
	asked bool
	until time.Time // busy agents are asked again until then
}

// ask asks all questions, asked at a time, and waits for the answers.
func (c *Control) ask(job *planJob, questions []*question) {
	defer close(job.done)
	defer func() {
		job.mu.Lock()
		defer job.mu.Unlock()
		job.finished = c.now()
	}()
	open := map[string]*question{} // asked or to be asked again
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for len(questions) > 0 || len(open) > 0 {
		for len(questions) > 0 && len(open) < asked {
			q := questions[0]
			questions = questions[1:]
			q.until = c.now().Add(q.limit())
			if c.put(job, q) {
				open[q.uid.String()] = q
			}
		}
		select {
		case <-c.ending:
			return
		case a := <-job.answers:
			if q := open[a.uid]; q != nil && c.answered(job, q, a.answer) {
				delete(open, a.uid)
			}
		case <-ticker.C:
			for uid, q := range open {
				if c.overdue(job, q) {
					delete(open, uid)
				}
			}
		}
	}
}

func (q *question) limit() time.Duration {
	if q.http {
		return answerLimitHTTP
	}
	return answerLimit
}

// put asks, and says whether an answer will come.
func (c *Control) put(job *planJob, q *question) bool {
	data, err := json.Marshal(plan.Request{ID: job.id + ":" + q.uid.String(), Files: q.files})
	if err == nil && len(data) > plan.MaxMessage {
		job.set(q.uid, apiv1.OutcomeCannotTell, fmt.Sprintf("the question would have %d bytes; the limit is %d", len(data), plan.MaxMessage))
		return false
	}
	if err == nil {
		err = c.opamp.Push(q.uid, &opampserver.Offer{CustomMessage: &protobufs.CustomMessage{Capability: plan.Capability, Type: plan.TypePlan, Data: data}})
	}
	if errors.Is(err, opampserver.ErrBusy) {
		q.asked, q.due = false, c.now().Add(askAgainAfter)
		return true
	}
	if err != nil {
		job.set(q.uid, apiv1.OutcomeCannotTell, "cannot be asked: "+err.Error())
		return false
	}
	q.asked, q.due = true, c.now().Add(q.limit())
	return true
}

// answered notes an answer, and says whether it is the last word.
func (c *Control) answered(job *planJob, q *question, a plan.Answer) bool {
	if a.Outcome == plan.Busy && c.now().Before(q.until) {
		q.asked, q.due = false, c.now().Add(askAgainAfter)
		return false
	}
	job.mu.Lock()
	defer job.mu.Unlock()
	entry := job.agents[q.uid.String()]
	entry.Message, entry.Truncated = text(a.Message), a.Truncated
	switch a.Outcome {
	case plan.Accepted:
		entry.Outcome, entry.Diff = apiv1.OutcomeAccepted, job.diff(a.Diff)
		entry.Truncated = entry.Truncated || entry.Diff == "" && a.Diff != ""
	case plan.Refused:
		entry.Outcome, entry.Stage = apiv1.OutcomeRefused, strings.ReplaceAll(text(a.Stage), " ", "_")
	default:
		entry.Outcome, entry.Message = apiv1.OutcomeCannotTell, cmp.Or(entry.Message, "answered "+text(string(a.Outcome)))
	}
	return true
}

const (
	// maxDiff bounds an agent's difference, as the agents do, and maxDiffs the different ones of a plan together, in bytes.
	maxDiff  = 1 << 20
	maxDiffs = 32 << 20
)

// diff keeps one copy of each difference, of which a fleet has few; nothing if there is no room for it. The caller holds job.mu.
func (j *planJob) diff(text string) string {
	if known, ok := j.diffs[text]; ok {
		return known
	}
	if len(text) > maxDiff || j.size+len(text) > maxDiffs {
		return ""
	}
	if j.diffs == nil {
		j.diffs = map[string]string{}
	}
	j.size += len(text)
	j.diffs[text] = strings.ToValidUTF8(text, "\uFFFD")
	return j.diffs[text]
}

// overdue asks again who was busy, and gives up on who does not answer.
func (c *Control) overdue(job *planJob, q *question) (over bool) {
	switch {
	case c.now().Before(q.due):
		return false
	case !q.asked:
		return !c.put(job, q)
	}
	job.set(q.uid, apiv1.OutcomeCannotTell, "did not answer within "+q.limit().String())
	return true
}
