package deploy_test

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/yaml"
)

// kustomizations are the folders of deploy/kubernetes and what each of them makes: neither less nor more, because what is
// applied with one is deleted with it.
var kustomizations = map[string][]string{
	"base":            {"Namespace/observability"},
	"agent":           {"ConfigMap/agent-config", "DaemonSet/agent", "Service/agent"},
	"agent-tiered":    {"ConfigMap/agent-config", "DaemonSet/agent", "Service/agent"},
	"gateway":         {"ConfigMap/gateway-config", "Deployment/gateway", "PodDisruptionBudget/gateway", "Service/gateway"},
	"gateway-durable": {"ConfigMap/gateway-config", "StatefulSet/gateway", "PodDisruptionBudget/gateway", "Service/gateway"},
	"tiered": {
		"ConfigMap/balancer-config", "Deployment/balancer", "PodDisruptionBudget/balancer", "Role/balancer", "RoleBinding/balancer",
		"Service/balancer", "ServiceAccount/balancer", "ConfigMap/sampler-config", "NetworkPolicy/sampler",
		"PodDisruptionBudget/sampler", "Service/sampler", "StatefulSet/sampler",
	},
}

// eachKustomization runs a test on every folder.
func eachKustomization(t *testing.T, test func(t *testing.T, m manifest)) {
	t.Helper()
	for name := range kustomizations {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, build(t, repoFile(t, "deploy", "kubernetes", name)))
		})
	}
}

// eachWorkload runs a test on every workload of every folder.
func eachWorkload(t *testing.T, test func(t *testing.T, m manifest, w workload)) {
	t.Helper()
	eachKustomization(t, func(t *testing.T, m manifest) {
		for name, w := range m.workloads {
			t.Run(name, func(t *testing.T) { test(t, m, w) })
		}
	})
}

func TestKubernetesListsEveryFolder(t *testing.T) {
	t.Parallel()
	found, err := filepath.Glob(repoFile(t, "deploy", "kubernetes", "*", "kustomization.yaml"))
	require.NoError(t, err)
	var names []string
	for _, file := range found {
		names = append(names, filepath.Base(filepath.Dir(file)))
	}
	require.ElementsMatch(t, slices.Collect(maps.Keys(kustomizations)), names)
}

func TestKubernetesBuilds(t *testing.T) {
	t.Parallel()
	for name, want := range kustomizations {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.ElementsMatch(t, want, build(t, repoFile(t, "deploy", "kubernetes", name)).names)
		})
	}
}

// The "restricted" profile of the Pod Security Standards and a read-only root. The exceptions are the agent's, by name.
func TestKubernetesPodsAreHardened(t *testing.T) {
	t.Parallel()
	eachWorkload(t, func(t *testing.T, _ manifest, w workload) {
		pod := w.pod.Spec
		require.Equal(t, new(w.name == "balancer"), pod.AutomountServiceAccountToken, "a token of the API")
		require.False(t, pod.HostNetwork || pod.HostPID || pod.HostIPC)
		require.Equal(t, new(true), pod.SecurityContext.RunAsNonRoot)
		require.Equal(t, corev1.SeccompProfileTypeRuntimeDefault, pod.SecurityContext.SeccompProfile.Type)
		for _, id := range []*int64{pod.SecurityContext.RunAsUser, pod.SecurityContext.RunAsGroup, pod.SecurityContext.FSGroup} {
			require.Equal(t, new(int64(10001)), id)
		}
		for _, v := range pod.Volumes {
			if v.HostPath != nil {
				require.Equal(t, "agent", w.name, "a directory of the node: %s", v.Name)
			}
		}
		for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
			requireHardened(t, c, w.name == "agent" && c.Name == "statedir")
		}
	})
}

func requireHardened(t *testing.T, c corev1.Container, chown bool) {
	t.Helper()
	s := c.SecurityContext
	require.Equal(t, new(true), s.ReadOnlyRootFilesystem, c.Name)
	require.Equal(t, new(false), s.AllowPrivilegeEscalation, c.Name)
	require.Nil(t, s.Privileged, c.Name)
	require.Equal(t, []corev1.Capability{"ALL"}, s.Capabilities.Drop, c.Name)
	if chown {
		require.Equal(t, []corev1.Capability{"CHOWN"}, s.Capabilities.Add)
		require.Equal(t, "/statedir", c.Command[0])
	} else {
		require.Empty(t, s.Capabilities.Add, c.Name)
		require.Nil(t, s.RunAsNonRoot, c.Name)
		require.Nil(t, s.RunAsUser, c.Name)
	}
	memory := c.Resources.Limits.Memory()
	require.False(t, memory.IsZero(), c.Name)
	require.Zero(t, memory.Cmp(*c.Resources.Requests.Memory()), "%s: memory request and limit differ", c.Name)
	require.False(t, c.Resources.Requests.Cpu().IsZero(), c.Name)
	require.Equal(t, corev1.PullIfNotPresent, c.ImagePullPolicy, c.Name)
	require.Equal(t, "localhost/otelcol-collie:latest", c.Image, c.Name)
	for _, port := range c.Ports {
		require.Zero(t, port.HostPort, c.Name)
	}
}

// The files in the cluster are those of configs/, byte for byte; every --config names one of them; the environment fits
// them; and the binary accepts the whole.
func TestKubernetesRunsTheShippedConfigurations(t *testing.T) {
	t.Parallel()
	eachWorkload(t, func(t *testing.T, m manifest, w workload) {
		container := w.pod.Spec.Containers[0]
		require.Len(t, w.pod.Spec.Containers, 1)
		var shipped, mounted []string
		inPod := t.TempDir()
		for _, arg := range container.Args {
			path, ok := strings.CutPrefix(arg, "--config=")
			require.True(t, ok, arg)
			name, ok := strings.CutPrefix(path, "/etc/otelcol-collie/configs/")
			require.True(t, ok, "%s is not a path of the image", path)
			content := m.mounted(t, w, path)
			original, err := os.ReadFile(repoFile(t, "configs", name))
			require.NoError(t, err)
			require.Equal(t, string(original), content, "%s in the ConfigMap", path)
			shipped = append(shipped, repoFile(t, "configs", name))
			file := filepath.Join(inPod, filepath.Base(path))
			require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
			mounted = append(mounted, file)
		}
		require.NotEmpty(t, mounted)

		env := podEnvironment(t, w)
		delete(env, "K8S_NAMESPACE") // it is there to make COLLIE_SAMPLERS_SERVICE
		requireVariables(t, env, shipped...)
		// Directories of the pod: they are mounted there, and stand-ins are here.
		if _, writes := variables(t, shipped...)["COLLIE_STATE_DIR"]; writes {
			require.False(t, mountAt(t, w, env["COLLIE_STATE_DIR"]).ReadOnly)
			env["COLLIE_STATE_DIR"] = t.TempDir()
		}
		if host, ok := env["COLLIE_HOST_ROOT"]; ok {
			require.True(t, mountAt(t, w, host).ReadOnly)
			env["COLLIE_HOST_ROOT"] = t.TempDir()
		}
		validate(t, env, mounted...)
	})
}

// mounted is the content of a file that a ConfigMap brings into the Collector's container.
func (m *manifest) mounted(t *testing.T, w workload, path string) string {
	t.Helper()
	for _, mount := range w.pod.Spec.Containers[0].VolumeMounts {
		for _, volume := range w.pod.Spec.Volumes {
			if volume.Name != mount.Name || volume.ConfigMap == nil || filepath.Dir(path) != mount.MountPath {
				continue
			}
			require.Contains(t, m.configMaps, volume.ConfigMap.Name, "the ConfigMap of volume %s", volume.Name)
			require.Regexp(t, hashPattern, volume.ConfigMap.Name, "no hash: a change would not roll the pods")
			data := m.configMaps[volume.ConfigMap.Name].Data
			require.Contains(t, data, filepath.Base(path), "ConfigMap %s", volume.ConfigMap.Name)
			return data[filepath.Base(path)]
		}
	}
	require.FailNow(t, path+" is not mounted")
	return ""
}

// mountAt is what is mounted at a directory of the Collector's container, from a volume that is declared once.
func mountAt(t *testing.T, w workload, dir string) corev1.VolumeMount {
	t.Helper()
	mounts := w.pod.Spec.Containers[0].VolumeMounts
	i := slices.IndexFunc(mounts, func(m corev1.VolumeMount) bool { return m.MountPath == dir })
	require.NotEqual(t, -1, i, "nothing is mounted at %s", dir)
	named := slices.ContainsFunc(w.pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == mounts[i].Name })
	claimed := slices.ContainsFunc(w.claims, func(c corev1.PersistentVolumeClaim) bool { return c.Name == mounts[i].Name })
	require.True(t, named != claimed, "volume %s must be declared once", mounts[i].Name)
	return mounts[i]
}

// podEnvironment is the environment that the kubelet would make, with examples for what it takes from the pod.
func podEnvironment(t *testing.T, w workload) map[string]string {
	t.Helper()
	container := w.pod.Spec.Containers[0]
	env := map[string]string{}
	for _, v := range container.Env {
		value := v.Value
		if v.ValueFrom != nil && v.ValueFrom.FieldRef != nil {
			example := map[string]string{"status.podIP": "127.0.0.1", "spec.nodeName": "node-1", "metadata.namespace": "observability"}
			require.Contains(t, example, v.ValueFrom.FieldRef.FieldPath)
			value = example[v.ValueFrom.FieldRef.FieldPath]
		}
		if v.ValueFrom != nil && v.ValueFrom.ResourceFieldRef != nil {
			require.Equal(t, "requests.cpu", v.ValueFrom.ResourceFieldRef.Resource)
			value = container.Resources.Requests.Cpu().String()
		}
		// As in Kubernetes, only what stands before can be referred to.
		for name, earlier := range env {
			value = strings.ReplaceAll(value, "$("+name+")", earlier)
		}
		require.NotContains(t, value, "$(", "%s refers to a variable that does not stand before it", v.Name)
		require.NotEmpty(t, value, v.Name)
		env[v.Name] = value
	}
	require.Equal(t, "127.0.0.1", env["COLLIE_LISTEN"], "it must listen on the pod's address: probes and Services come from outside")
	for _, from := range container.EnvFrom {
		require.Equal(t, new(true), from.SecretRef.Optional, "nothing makes the Secret %s", from.SecretRef.Name)
	}
	return env
}

func TestKubernetesProbes(t *testing.T) {
	t.Parallel()
	eachWorkload(t, func(t *testing.T, _ manifest, w workload) {
		c := w.pod.Spec.Containers[0]
		ports := containerPorts(w)
		for name, probe := range map[string]*corev1.Probe{"startup": c.StartupProbe, "liveness": c.LivenessProbe, "readiness": c.ReadinessProbe} {
			require.NotNil(t, probe, name)
			require.Equal(t, "/", probe.HTTPGet.Path, name)
			require.Equal(t, int32(13133), ports[probe.HTTPGet.Port.String()], name)
		}
		require.NotNil(t, w.pod.Spec.TerminationGracePeriodSeconds)
		grace := *w.pod.Spec.TerminationGracePeriodSeconds
		if c.Lifecycle != nil {
			grace -= c.Lifecycle.PreStop.Sleep.Seconds
		}
		require.GreaterOrEqual(t, grace, int64(30), "what is left after the preStop sleep")
		if w.name == "sampler" {
			require.Equal(t, new(int64(90)), w.pod.Spec.TerminationGracePeriodSeconds)
		}
	})
}

// containerPorts are the ports of the Collector's container by name.
func containerPorts(w workload) map[string]int32 {
	ports := map[string]int32{}
	for _, port := range w.pod.Spec.Containers[0].Ports {
		ports[port.Name] = port.ContainerPort
	}
	return ports
}

func TestKubernetesSelectors(t *testing.T) {
	t.Parallel()
	eachKustomization(t, func(t *testing.T, m manifest) {
		for name, w := range m.workloads {
			require.Equal(t, []string{name}, m.selected(t, w.selector), "selector of %s", name)
			for _, c := range w.pod.Spec.TopologySpreadConstraints {
				require.Equal(t, []string{name}, m.selected(t, c.LabelSelector), "topologySpreadConstraints of %s", name)
			}
			if name != "agent" {
				require.True(t, slices.ContainsFunc(m.budgets, func(b policyv1.PodDisruptionBudget) bool { return b.Name == name }), "no PodDisruptionBudget for %s", name)
			}
		}
		for _, budget := range m.budgets {
			require.Equal(t, []string{budget.Name}, m.selected(t, budget.Spec.Selector), "PodDisruptionBudget %s", budget.Name)
			require.Equal(t, new(intstr.FromInt32(1)), budget.Spec.MaxUnavailable)
		}
		for _, policy := range m.policies {
			require.Equal(t, []string{policy.Name}, m.selected(t, &policy.Spec.PodSelector), "NetworkPolicy %s", policy.Name)
			ports := containerPorts(m.workloads[policy.Name])
			for _, rule := range policy.Spec.Ingress {
				for _, port := range rule.Ports {
					require.Contains(t, ports, port.Port.String(), "NetworkPolicy %s", policy.Name)
				}
				for _, peer := range rule.From {
					require.Equal(t, []string{"balancer"}, m.selected(t, peer.PodSelector), "NetworkPolicy %s", policy.Name)
				}
			}
		}
	})
}

func TestKubernetesServices(t *testing.T) {
	t.Parallel()
	eachKustomization(t, func(t *testing.T, m manifest) {
		for name, service := range m.services {
			require.Equal(t, []string{name}, m.selected(t, &metav1.LabelSelector{MatchLabels: service.Spec.Selector}), "Service %s", name)
			ports := containerPorts(m.workloads[name])
			for _, port := range service.Spec.Ports {
				require.Equal(t, port.Port, ports[port.TargetPort.String()], "Service %s, port %s", name, port.Name)
			}
		}
		if agent, ok := m.services["agent"]; ok {
			require.Equal(t, new(corev1.ServiceInternalTrafficPolicyLocal), agent.Spec.InternalTrafficPolicy, "an application must reach the agent of its node")
		}
		if sampler, ok := m.services["sampler"]; ok {
			require.Equal(t, "None", sampler.Spec.ClusterIP, "balancers must see every sampler")
			require.False(t, sampler.Spec.PublishNotReadyAddresses)
		}
	})
}

// The balancer finds its samplers: the Service it is told of exists, in the namespace where its rights are.
func TestKubernetesBalancerMayWatchTheSamplers(t *testing.T) {
	t.Parallel()
	m := build(t, repoFile(t, "deploy", "kubernetes", "tiered"))
	balancer := m.workloads["balancer"]
	env := podEnvironment(t, balancer)
	name, namespace, _ := strings.Cut(env["COLLIE_SAMPLERS_SERVICE"], ".")
	require.Contains(t, m.services, name)
	require.Equal(t, m.services[name].Namespace, namespace)
	require.Equal(t, env["COLLIE_SAMPLER_PORT"], strconv.Itoa(int(containerPorts(m.workloads["sampler"])["otlp-grpc"])))

	require.Len(t, m.bindings, 1)
	require.Contains(t, m.roles, m.bindings[0].RoleRef.Name)
	role := m.roles[m.bindings[0].RoleRef.Name]
	require.Len(t, role.Rules, 1, "the least that it needs")
	require.Equal(t, []string{"discovery.k8s.io"}, role.Rules[0].APIGroups)
	require.Equal(t, []string{"endpointslices"}, role.Rules[0].Resources)
	require.ElementsMatch(t, []string{"get", "list", "watch"}, role.Rules[0].Verbs)
	require.Equal(t, namespace, role.Namespace)
	require.Equal(t, balancer.pod.Spec.ServiceAccountName, m.bindings[0].Subjects[0].Name)
	require.Contains(t, m.serviceAccounts, balancer.pod.Spec.ServiceAccountName)
	require.Equal(t, namespace, m.bindings[0].Subjects[0].Namespace)
}

// Where an agent sends to is a Service that some folder makes.
func TestKubernetesAgentsReachWhatTheySendTo(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ agent, variable, folder string }{
		{"agent", "COLLIE_GATEWAY_ENDPOINT", "gateway"},
		{"agent", "COLLIE_GATEWAY_ENDPOINT", "gateway-durable"},
		{"agent-tiered", "COLLIE_GATEWAY_ENDPOINT", "gateway"},
		{"agent-tiered", "COLLIE_BALANCER_ENDPOINT", "tiered"},
	} {
		t.Run(tc.agent+" to "+tc.folder, func(t *testing.T) {
			t.Parallel()
			agent := build(t, repoFile(t, "deploy", "kubernetes", tc.agent)).workloads["agent"]
			host, port, _ := strings.Cut(podEnvironment(t, agent)[tc.variable], ":")
			service := build(t, repoFile(t, "deploy", "kubernetes", tc.folder)).services[host]
			require.True(t, slices.ContainsFunc(service.Spec.Ports, func(p corev1.ServicePort) bool {
				return strconv.Itoa(int(p.Port)) == port
			}), "no Service %s with port %s", host, port)
		})
	}
}

// What deploy/README.md tells the user to write: a kustomization with these folders and an image of their own.
func TestKubernetesFoldersCombine(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	kubernetes, err := filepath.Rel(dir, repoFile(t, "deploy", "kubernetes"))
	require.NoError(t, err)
	own := types.Kustomization{
		TypeMeta:  types.TypeMeta{APIVersion: types.KustomizationVersion, Kind: types.KustomizationKind},
		Namespace: "observability",
		Images:    []types.Image{{Name: "localhost/otelcol-collie", NewName: "registry.example/otelcol-collie", NewTag: "1.2.3"}},
	}
	for _, folder := range []string{"base", "agent", "gateway", "tiered"} {
		own.Resources = append(own.Resources, filepath.Join(kubernetes, folder))
	}
	content, err := yaml.Marshal(own)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "kustomization.yaml"), content, 0o600))
	m := build(t, dir)
	require.Len(t, m.workloads, 4)
	require.Len(t, m.configMaps, 4)
	for name, w := range m.workloads {
		for _, c := range slices.Concat(w.pod.Spec.InitContainers, w.pod.Spec.Containers) {
			require.Equal(t, "registry.example/otelcol-collie:1.2.3", c.Image, name)
		}
	}
}
