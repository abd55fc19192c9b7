package control

import (
	"testing"

	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/auth"
	"github.com/collie-otel/collie/internal/server/store"
)

// packages is a folder with one executable.
type packages struct{ Packages }

func (packages) List() []apiv1.Package {
	return []apiv1.Package{{Name: "otelcol-collie", Version: "2.0.0"}}
}

func (packages) PlatformOf(map[string]string) (os, arch string, ok bool) { return "", "", false }

// Everything that a person changes is in the audit, with who did it.
func TestEveryWriteIsInTheAudit(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *Options) {
		withTokens(t)(o)
		o.Packages = packages{}
	})
	ctx := t.Context()
	a, _ := w.enrolled(-1)
	a.full.Capabilities |= uint64(fleet.AcceptsRestartCommand)
	a.hello()
	uid := a.uid.String()
	w.saved("base", "", "x")
	w.saved("gone", "", "x")
	id := w.rollOut("base", fleet.RolloutSpec{Canary: fleet.Amount{Count: 1}})
	step := func(_ *fleet.Rollout, err error) error { return err }
	var token store.Token
	for _, write := range []struct {
		do   func() error
		want fleet.Kind
	}{
		{func() error { return nil }, fleet.ConfigurationSaved},
		{func() error { return nil }, fleet.RolloutCreated},
		{func() error { return w.DeleteConfiguration(ctx, "test", "gone") }, fleet.ConfigurationDeleted},
		{func() error { return step(w.PauseRollout(ctx, "test", id)) }, fleet.RolloutPaused},
		{func() error { return step(w.ResumeRollout(ctx, "test", id)) }, fleet.RolloutResumed},
		{func() error { return step(w.AbortRollout(ctx, "test", id)) }, fleet.RolloutAborted},
		{func() error { _, err := w.Plan(ctx, "test", apiv1.PlanRequest{Name: "base", Body: "y"}); return err }, fleet.PlanRequested},
		{func() error { return w.Restart(ctx, "test", uid) }, fleet.AgentRestarted},
		{func() error { return w.RotateCredential(ctx, "test", uid) }, fleet.CredentialIssued},
		{func() error {
			return w.SaveConnection(ctx, "test", apiv1.Connection{Name: "c", ConnectionOffer: apiv1.ConnectionOffer{OpAMP: &apiv1.OpAMPSettings{}}})
		}, fleet.ConnectionSaved},
		{func() error { return w.DeleteConnection(ctx, "test", "c") }, fleet.ConnectionDeleted},
		{func() error { return w.SavePackageOffer(ctx, "test", apiv1.PackageOffer{Name: "p", Version: "2.0.0"}) }, fleet.PackageOfferSaved},
		{func() error { return w.DeletePackageOffer(ctx, "test", "p") }, fleet.PackageOfferDeleted},
		{func() (err error) {
			_, token, err = w.auth.Create(ctx, "test", auth.Request{Role: apiv1.RoleViewer, Uses: -1})
			return err
		}, fleet.TokenCreated},
		{func() error { return w.auth.Revoke(ctx, "test", token.ID) }, fleet.TokenRevoked},
		{func() error {
			a.send(&protobufs.AgentToServer{Capabilities: a.full.Capabilities, AgentDisconnect: &protobufs.AgentDisconnect{}})
			return w.Forget(ctx, "test", uid)
		}, fleet.AgentForgotten},
	} {
		require.NoError(t, write.do(), write.want)
		events, err := w.db.ListEvents(ctx, store.EventQuery{Limit: 1000}) // at once: it is written when the call returns
		require.NoError(t, err)
		found := false
		for _, e := range events {
			found = found || e.Kind == write.want && e.Actor == "test"
		}
		require.True(t, found, write.want)
	}
}
