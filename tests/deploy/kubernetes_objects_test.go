package deploy_test

import (
	"maps"
	"regexp"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// workload is what DaemonSets, Deployments and StatefulSets have in common.
type workload struct {
	kind, name  string
	selector    *metav1.LabelSelector
	pod         corev1.PodTemplateSpec
	claims      []corev1.PersistentVolumeClaim
	serviceName string
}

// manifest is a built kustomization, decoded.
type manifest struct {
	names           []string // "Kind/name" of everything, in the order of the output, without hashes
	configMaps      map[string]corev1.ConfigMap
	workloads       map[string]workload
	services        map[string]corev1.Service
	budgets         []policyv1.PodDisruptionBudget
	policies        []networkingv1.NetworkPolicy
	roles           map[string]rbacv1.Role
	bindings        []rbacv1.RoleBinding
	serviceAccounts map[string]corev1.ServiceAccount
	namespaces      map[string]corev1.Namespace
}

// hashPattern is what kustomize puts behind the name of a generated ConfigMap.
var hashPattern = regexp.MustCompile(`-[a-z0-9]{10}$`)

// build does what `kubectl kustomize` does, without flags: the load restrictor is on.
func build(t *testing.T, dir string) manifest {
	t.Helper()
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	require.NoError(t, err)
	m := manifest{
		configMaps: map[string]corev1.ConfigMap{}, workloads: map[string]workload{}, services: map[string]corev1.Service{},
		roles: map[string]rbacv1.Role{}, serviceAccounts: map[string]corev1.ServiceAccount{}, namespaces: map[string]corev1.Namespace{},
	}
	for _, r := range resources.Resources() {
		if kind := r.GetKind(); kind != "Namespace" {
			require.Equal(t, "observability", r.GetNamespace(), "%s %s", kind, r.GetName())
		}
		document, err := r.AsYAML()
		require.NoError(t, err)
		m.names = append(m.names, r.GetKind()+"/"+hashPattern.ReplaceAllString(r.GetName(), ""))
		m.add(t, r.GetApiVersion()+" "+r.GetKind(), document)
	}
	for name, w := range m.workloads {
		if w.kind == "StatefulSet" {
			require.Contains(t, m.services, w.serviceName, "serviceName of StatefulSet %s", name)
		}
	}
	return m
}

// decode is strict: a field that the type does not have is an error, as `kubectl --validate=strict` has it.
func decode[T any](t *testing.T, document []byte) T {
	t.Helper()
	var object T
	require.NoError(t, yaml.UnmarshalStrict(document, &object), "%s", document)
	return object
}

func (m *manifest) add(t *testing.T, kind string, document []byte) {
	t.Helper()
	switch kind {
	case "v1 ConfigMap":
		o := decode[corev1.ConfigMap](t, document)
		m.configMaps[o.Name] = o
	case "v1 Service":
		o := decode[corev1.Service](t, document)
		m.services[o.Name] = o
	case "v1 ServiceAccount":
		o := decode[corev1.ServiceAccount](t, document)
		m.serviceAccounts[o.Name] = o
	case "v1 Namespace":
		o := decode[corev1.Namespace](t, document)
		m.namespaces[o.Name] = o
	case "apps/v1 DaemonSet":
		o := decode[appsv1.DaemonSet](t, document)
		m.workloads[o.Name] = workload{"DaemonSet", o.Name, o.Spec.Selector, o.Spec.Template, nil, ""}
	case "apps/v1 Deployment":
		o := decode[appsv1.Deployment](t, document)
		m.workloads[o.Name] = workload{"Deployment", o.Name, o.Spec.Selector, o.Spec.Template, nil, ""}
	case "apps/v1 StatefulSet":
		o := decode[appsv1.StatefulSet](t, document)
		require.Equal(t, appsv1.ParallelPodManagement, o.Spec.PodManagementPolicy)
		m.workloads[o.Name] = workload{"StatefulSet", o.Name, o.Spec.Selector, o.Spec.Template, o.Spec.VolumeClaimTemplates, o.Spec.ServiceName}
	case "policy/v1 PodDisruptionBudget":
		m.budgets = append(m.budgets, decode[policyv1.PodDisruptionBudget](t, document))
	case "networking.k8s.io/v1 NetworkPolicy":
		m.policies = append(m.policies, decode[networkingv1.NetworkPolicy](t, document))
	case "rbac.authorization.k8s.io/v1 Role":
		o := decode[rbacv1.Role](t, document)
		m.roles[o.Name] = o
	case "rbac.authorization.k8s.io/v1 RoleBinding":
		m.bindings = append(m.bindings, decode[rbacv1.RoleBinding](t, document))
	default:
		require.FailNow(t, "no test knows "+kind, "%s", document)
	}
}

// selected are the names of the workloads whose pods a selector matches.
func (m *manifest) selected(t *testing.T, selector *metav1.LabelSelector) []string {
	t.Helper()
	s, err := metav1.LabelSelectorAsSelector(selector)
	require.NoError(t, err)
	require.False(t, s.Empty(), "an empty selector matches every pod")
	var names []string
	for _, name := range slices.Sorted(maps.Keys(m.workloads)) {
		if s.Matches(labels.Set(m.workloads[name].pod.Labels)) {
			names = append(names, name)
		}
	}
	return names
}
