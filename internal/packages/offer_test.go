//go:build unix

package packages

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"aead.dev/minisign"
	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"
)

func TestUnfitOffers(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	good := func() *protobufs.PackageAvailable { return f.packageOf(newVersion, newProgram) }
	addon, anonymous := good(), good()
	addon.Type, anonymous.Hash = protobufs.PackageType_PackageType_Addon, nil
	many := map[string]*protobufs.PackageAvailable{}
	for i := range 1000 {
		many[fmt.Sprint(i)] = nil
	}
	for name, tc := range map[string]struct {
		packages map[string]*protobufs.PackageAvailable
		want     string
		refused  int
	}{
		"another":  {map[string]*protobufs.PackageAvailable{"plugin": good()}, "no other", 1},
		"addon":    {map[string]*protobufs.PackageAvailable{Name: addon}, "no addons", 1},
		"several":  {map[string]*protobufs.PackageAvailable{Name: good(), "plugin": good()}, "2 were offered", 2},
		"no hash":  {map[string]*protobufs.PackageAvailable{Name: anonymous}, "no hash", 1},
		"nothing":  {map[string]*protobufs.PackageAvailable{"": nil}, "no hash", 1},
		"hostile":  {many, "1000 were offered", maxRefused},
		"too long": {map[string]*protobufs.PackageAvailable{strings.Repeat("x", 1000): good()}, "no other", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			m := f.open(oldVersion)
			m.Offer(&protobufs.PackagesAvailable{Packages: tc.packages, AllPackagesHash: []byte("all")})
			awaitThat(t, m, func(*protobufs.PackageStatus) bool {
				return string(m.Statuses().ServerProvidedAllPackagesHash) == "all"
			})
			m.Close()
			m = f.open(oldVersion)
			all := m.Statuses()
			require.Contains(t, all.ErrorMessage, tc.want)
			failed, has := 0, 0
			for name, s := range all.Packages {
				require.Equal(t, name, s.Name)
				if s.AgentHasVersion != "" {
					has++
				}
				if s.Status == statusFailed {
					failed++
					require.Contains(t, s.ErrorMessage, tc.want)
				}
			}
			require.Equal(t, tc.refused, failed)
			require.Positive(t, has, "what the agent has is always listed")
			require.Empty(t, f.files.seen())
		})
	}
}

func TestRefusedBeforeTheDownload(t *testing.T) {
	t.Parallel()
	stranger := newFixture(t)
	for name, tc := range map[string]struct {
		edit func(f *fixture, p *protobufs.PackageAvailable)
		want string
	}{
		"unsigned": {func(_ *fixture, p *protobufs.PackageAvailable) { p.File.Signature = nil }, "not signed"},
		"truncated signature": {func(_ *fixture, p *protobufs.PackageAvailable) {
			p.File.Signature = p.File.Signature[:len(p.File.Signature)-40]
		}, "no minisign signature"},
		"endless signature": {func(_ *fixture, p *protobufs.PackageAvailable) {
			p.File.Signature = append(p.File.Signature, bytes.Repeat([]byte("\n"), maxSignature)...)
		}, "more than 4096"},
		"another key": {func(_ *fixture, p *protobufs.PackageAvailable) {
			p.File.Signature = stranger.sign(newProgram, trustedComment(newVersion))
		}, "not among the public keys"},
		"another version": {func(f *fixture, p *protobufs.PackageAvailable) {
			p.File.Signature = f.sign(newProgram, trustedComment("1.0.5"))
		}, `is for "otelcol-collie 1.0.5 `},
		"another platform": {func(f *fixture, p *protobufs.PackageAvailable) {
			p.File.Signature = f.sign(newProgram, "otelcol-collie "+newVersion+" plan9/mips")
		}, "plan9/mips"},
		"another program": {func(f *fixture, p *protobufs.PackageAvailable) {
			p.File.Signature = f.sign(newProgram, strings.Replace(trustedComment(newVersion), Name, "collie", 1))
		}, `is for "collie`},
		"minisign's own comment": {func(f *fixture, p *protobufs.PackageAvailable) {
			p.File.Signature = f.sign(newProgram, "timestamp:1\tfile:otelcol-collie\thashed")
		}, "is for"},
		"not prehashed": {func(f *fixture, p *protobufs.PackageAvailable) {
			p.File.Signature = minisign.SignWithComments(f.secret, newProgram, trustedComment(newVersion), "x")
		}, "not prehashed"},
		"no file":          {func(_ *fixture, p *protobufs.PackageAvailable) { p.File = nil }, "content_hash has 0 bytes"},
		"short hash":       {func(_ *fixture, p *protobufs.PackageAvailable) { p.File.ContentHash = []byte{1} }, "content_hash has 1 bytes"},
		"another scheme":   {func(_ *fixture, p *protobufs.PackageAvailable) { p.File.DownloadUrl = "file:///bin/sh" }, "no http or https URL"},
		"no URL":           {func(_ *fixture, p *protobufs.PackageAvailable) { p.File.DownloadUrl = "http://s3cret:%zz" }, "no http or https URL"},
		"no keys":          {func(f *fixture, _ *protobufs.PackageAvailable) { f.opts.PublicKeys = nil }, "no public keys"},
		"staging not ours": {func(f *fixture, _ *protobufs.PackageAvailable) { f.opts.StagingDirectory = "/proc" }, "staging folder"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			offer := f.offer(func(p *protobufs.PackageAvailable) { tc.edit(f, p) })
			m := f.open(oldVersion)
			message := awaitFailure(t, m, offer)
			require.Contains(t, message, tc.want)
			require.NotContains(t, message, "s3cret")
			require.Empty(t, f.files.seen())
			f.requireExecutable(oldProgram)
			f.requireTidy()
		})
	}
}

func TestVersions(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		running, offered string
		allow            bool
		want             string
	}{
		"newer":                  {running: "1.0.0", offered: "1.0.1"},
		"newer, with v":          {running: "v1.0.0", offered: "1.0.1"},
		"the same, built again":  {running: "1.0.0+a", offered: "1.0.0+b"},
		"release of a candidate": {running: "1.0.0-rc.1", offered: "1.0.0"},
		"older":                  {running: "1.10.0", offered: "1.9.0", want: "1.9.0 is older than 1.10.0"},
		"candidate of a release": {running: "1.0.0", offered: "1.0.0-rc.1", want: "older"},
		"not comparable":         {running: "dev", offered: "1.0.0", want: "cannot tell"},
		"not a version":          {running: "1.0.0", offered: "latest", want: "cannot tell"},
		"older, allowed":         {running: "1.10.0", offered: "1.9.0", allow: true},
		"anything, allowed":      {running: "dev", offered: "latest", allow: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := &Manager{opts: Options{Version: tc.running, AllowDowngrade: tc.allow}}
			err := m.checkVersion(&candidate{identity: identity{Version: tc.offered, Content: sum(nil)}})
			if tc.want == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, tc.want)
			}
		})
	}
}

// A rollout that is taken back offers what was there before: that very file is accepted, and no other old one.
func TestOneStepBack(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	m := f.open(oldVersion)
	m.Offer(f.offer())
	awaitRestart(t, m)
	m.Close()
	m = f.open(newVersion)
	require.NoError(t, m.Confirm())
	offer := func(content []byte, hash string) *protobufs.PackagesAvailable {
		p := f.packageOf(oldVersion, content)
		p.Hash = []byte(hash)
		return &protobufs.PackagesAvailable{Packages: map[string]*protobufs.PackageAvailable{Name: p}, AllPackagesHash: []byte(hash)}
	}
	m.Offer(offer(program(oldVersion, "true # other"), "other"))
	require.Contains(t, await(t, m, statusFailed).ErrorMessage, "1.0.0 is older than 1.1.0")
	f.files.mu.Lock()
	f.files.content = oldProgram
	f.files.mu.Unlock()
	m.Offer(offer(oldProgram, "previous"))
	awaitRestart(t, m)
	f.requireExecutable(oldProgram)
}

func TestCheckKeys(t *testing.T) {
	t.Parallel()
	public, _, err := minisign.GenerateKey(nil)
	require.NoError(t, err)
	file, err := public.MarshalText()
	require.NoError(t, err)
	encrypted := "untrusted comment: minisign encrypted secret key\nRWRTY0Iy" + strings.Repeat("s3cr", 50) + "\n"
	require.NoError(t, CheckKeys([]string{public.String(), string(file), string(file) + "\n", " " + public.String() + "\r\n"}))
	err = CheckKeys([]string{public.String(), "", "not base64!", encrypted, public.String()[:20]})
	for i := 1; i <= 4; i++ {
		require.ErrorContains(t, err, fmt.Sprintf("public_keys[%d]: ", i))
	}
	require.NotContains(t, err.Error(), "s3cr", "no secret key in an error")
}

func FuzzSignature(f *testing.F) {
	public, secret, err := minisign.GenerateKey(nil)
	require.NoError(f, err)
	keys, err := parseKeys([]string{public.String()})
	require.NoError(f, err)
	content := []byte("content")
	path := f.TempDir() + "/file"
	require.NoError(f, os.WriteFile(path, content, 0o600))
	good := sign(f, secret, content, trustedComment(newVersion))
	require.NoError(f, keys.verify(f.Context(), path, sum(content), good, newVersion), "a seed must be accepted")
	var want minisign.Signature
	require.NoError(f, want.UnmarshalText(good))
	for _, seed := range [][]byte{
		good, good[:len(good)/2],
		{},
		bytes.ToUpper(good), append([]byte("\n"), good...), bytes.ReplaceAll(good, []byte("\n"), []byte("\r\n")),
		sign(f, secret, content, trustedComment("1.2.0")), sign(f, secret, []byte("other"), trustedComment(newVersion)),
		minisign.SignWithComments(secret, content, trustedComment(newVersion), "x"),
		[]byte("untrusted comment: \n\ntrusted comment: " + Name + " 1.1.0 " + runtime.GOOS + "/" + runtime.GOARCH + "\n"),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if keys.verify(t.Context(), path, sum(content), text, newVersion) != nil {
			return
		}
		var got minisign.Signature
		require.NoError(t, got.UnmarshalText(text))
		require.True(t, got.Equal(want), "accepted: %q", text)
	})
}
