package opampextension

import (
	"context"
	"errors"

	"github.com/open-telemetry/opamp-go/client/types"
	"github.com/open-telemetry/opamp-go/protobufs"
	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/collie-otel/collie/internal/overlay"
	"github.com/collie-otel/collie/internal/plan"
	"github.com/collie-otel/collie/internal/remoteconfig"
)

// Plans cost a dry run each: more than this are answered "busy".
const (
	plansPerSecond = 5
	plansAtOnce    = 10
)

// servePlans answers what the agent would do with configurations. One that comes during a reload waits for the next run.
func (e *opampExtension) servePlans(ctx context.Context) {
	handler := e.session.Custom.Lasting(plan.Capability)
	limit := rate.NewLimiter(plansPerSecond, plansAtOnce)
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-handler.Message():
			if m.Type != plan.TypePlan {
				continue
			}
			data, err := e.judge(ctx, m, limit.Allow()).Encode()
			if err != nil {
				e.set.Logger.Error("The answer to a plan cannot be encoded.", zap.Error(err))
				continue
			}
			for pending := true; pending; {
				sent, err := handler.SendMessage(plan.TypeAnswer, data)
				if pending = errors.Is(err, types.ErrCustomMessagePending); pending {
					select {
					case <-ctx.Done():
						return
					case <-sent:
					}
				}
			}
		}
	}
}

func (e *opampExtension) judge(ctx context.Context, m *protobufs.CustomMessage, allowed bool) plan.Answer {
	request, err := plan.ParseRequest(m.Data)
	if err != nil {
		return plan.Answer{ID: request.ID, Outcome: plan.Invalid, Message: err.Error()}
	}
	if !allowed {
		return plan.Answer{ID: request.ID, Outcome: plan.Busy, Message: "too many plans: ask again after a second"}
	}
	g := &remoteconfig.Generation{}
	for name, body := range request.Files {
		g.Files = append(g.Files, overlay.File{Name: name, Body: []byte(body)})
	}
	result, stage, err := e.manager.Preview(ctx, g)
	if err != nil {
		return plan.Answer{ID: request.ID, Outcome: plan.Refused, Stage: string(stage), Message: validUTF8(err.Error())}
	}
	if !e.cfg.Capabilities.ReportsEffectiveConfig {
		return plan.Answer{ID: request.ID, Outcome: plan.Accepted}
	}
	candidate, err := effectiveConfig(result.Effective, result.Unexpanded, false)
	if err != nil {
		return plan.Answer{ID: request.ID, Outcome: plan.Refused, Stage: string(remoteconfig.StageDryRun), Message: err.Error()}
	}
	return plan.Compare(request.ID, mainFile(e.reported.Load()), mainFile(candidate))
}

// mainFile is the configuration itself, without what is reported beside it.
func mainFile(c *protobufs.EffectiveConfig) string {
	return string(c.GetConfigMap().GetConfigMap()[""].GetBody())
}
