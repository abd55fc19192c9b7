// Command upstreamclient is an agent made of opamp-go's own client. It has a module of its own: the client's dependencies are not the
// project's. It accepts every configuration, and says goodbye and ends when it is told to restart.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/client"
	"github.com/open-telemetry/opamp-go/client/types"
	"github.com/open-telemetry/opamp-go/protobufs"
)

func main() {
	endpoint := flag.String("endpoint", "", "URL of the server: ws or http")
	uid := flag.String("instance-uid", "", "UUID of the agent")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *endpoint, *uid); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, endpoint, uid string) error {
	id, err := uuid.Parse(uid)
	if err != nil {
		return err
	}
	restarts := make(chan struct{}, 1)
	c := newClient(endpoint)
	capabilities := protobufs.AgentCapabilities_AgentCapabilities_ReportsStatus | protobufs.AgentCapabilities_AgentCapabilities_AcceptsRemoteConfig |
		protobufs.AgentCapabilities_AgentCapabilities_ReportsEffectiveConfig | protobufs.AgentCapabilities_AgentCapabilities_ReportsHealth |
		protobufs.AgentCapabilities_AgentCapabilities_ReportsRemoteConfig | protobufs.AgentCapabilities_AgentCapabilities_AcceptsRestartCommand
	name := &protobufs.KeyValue{Key: "service.name", Value: &protobufs.AnyValue{Value: &protobufs.AnyValue_StringValue{StringValue: "upstream"}}}
	if err := c.SetAgentDescription(&protobufs.AgentDescription{IdentifyingAttributes: []*protobufs.KeyValue{name}}); err != nil {
		return err
	}
	if err := c.SetHealth(&protobufs.ComponentHealth{Healthy: true}); err != nil {
		return err
	}
	if err := c.SetCapabilities(&capabilities); err != nil {
		return err
	}
	err = c.Start(ctx, types.StartSettings{
		OpAMPServerURL: endpoint, InstanceUid: types.InstanceUid(id), EnableCompression: true,
		Callbacks: types.Callbacks{
			GetEffectiveConfig: func(context.Context) (*protobufs.EffectiveConfig, error) {
				body := []byte(strings.Repeat("receivers: {otlp: {}}\n", 500))
				return &protobufs.EffectiveConfig{ConfigMap: &protobufs.AgentConfigMap{ConfigMap: map[string]*protobufs.AgentConfigFile{"": {Body: body}}}}, nil
			},
			OnMessage: func(_ context.Context, m *types.MessageData) {
				if m.RemoteConfig != nil {
					_ = c.SetRemoteConfigStatus(&protobufs.RemoteConfigStatus{
						LastRemoteConfigHash: m.RemoteConfig.ConfigHash, Status: protobufs.RemoteConfigStatuses_RemoteConfigStatuses_APPLIED,
					})
				}
			},
			OnCommand: func(context.Context, *protobufs.ServerToAgentCommand) error {
				restarts <- struct{}{}
				return nil
			},
		},
	})
	if err != nil {
		return err
	}
	select {
	case <-restarts:
	case <-ctx.Done():
	}
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return c.Stop(limit)
}

func newClient(endpoint string) client.OpAMPClient {
	if strings.HasPrefix(endpoint, "ws") {
		return client.NewWebSocket(nil)
	}
	c := client.NewHTTP(nil)
	c.SetPollingInterval(20 * time.Millisecond)
	return c
}
