package policy

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// root is the project's folder, from here.
const root = "../.."

var (
	markdownLink = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	htmlSource   = regexp.MustCompile(`(?:src|srcset|href)="([^"]+)"`)
	codeBlock    = regexp.MustCompile("(?ms)^ *```.*?^ *```")
	heading      = regexp.MustCompile(`(?m)^#+ (.+)$`)
	notInAnchors = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
	variable     = regexp.MustCompile(`\bCOLLIE_[A-Z0-9_]+`)
	reference    = regexp.MustCompile(`\$\{env:(COLLIE_[A-Z0-9_]+)`)
)

func TestLinksOfTheDocsLeadSomewhere(t *testing.T) {
	t.Parallel()
	pages := documents(t)
	require.NotEmpty(t, pages)
	for _, page := range pages {
		t.Run(page, func(t *testing.T) {
			t.Parallel()
			text := codeBlock.ReplaceAllString(read(t, page), "")
			for _, found := range append(markdownLink.FindAllStringSubmatch(text, -1), htmlSource.FindAllStringSubmatch(text, -1)...) {
				checkLink(t, page, found[1])
			}
		})
	}
}

// checkLink follows links inside this repository, headings included; it fetches nothing.
func checkLink(t *testing.T, page, link string) {
	t.Helper()
	if strings.Contains(link, "://") || strings.HasPrefix(link, "mailto:") {
		return
	}
	file, anchor, _ := strings.Cut(link, "#")
	target := page
	if file != "" {
		target = filepath.Join(filepath.Dir(page), file)
		if _, err := os.Stat(filepath.Join(root, target)); err != nil {
			t.Errorf("%s links to %s: %v", page, link, err)
			return
		}
	}
	if anchor != "" && strings.HasSuffix(target, ".md") && !anchors(read(t, target))[anchor] {
		t.Errorf("%s links to %s: no such heading", page, link)
	}
}

// anchors are the headings of a page as GitHub names them.
func anchors(text string) map[string]bool {
	out := map[string]bool{}
	for _, found := range heading.FindAllStringSubmatch(codeBlock.ReplaceAllString(text, ""), -1) {
		name := notInAnchors.ReplaceAllString(strings.ToLower(found[1]), "")
		out[strings.ReplaceAll(name, " ", "-")] = true
	}
	return out
}

func TestTopologiesNamesOnlyVariablesThatExist(t *testing.T) {
	t.Parallel()
	text := read(t, "docs/topologies.md")
	used := variablesOf(t)
	for _, name := range variable.FindAllString(text, -1) {
		if !used[name] {
			t.Errorf("docs/topologies.md names %s, which no file in configs/ reads", name)
		}
	}
}

func TestTopologiesNamesEveryVariable(t *testing.T) {
	t.Parallel()
	text := read(t, "docs/topologies.md")
	for name := range variablesOf(t) {
		if !regexp.MustCompile(`\b` + name + `\b`).MatchString(text) {
			t.Errorf("configs/ reads %s, which docs/topologies.md does not name", name)
		}
	}
}

// variablesOf are the COLLIE_* variables that the configurations read.
func variablesOf(t *testing.T) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	err := filepath.WalkDir(filepath.Join(root, "configs"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".yaml" {
			return err
		}
		data, err := os.ReadFile(path)
		for _, found := range reference.FindAllStringSubmatch(string(data), -1) {
			out[found[1]] = true
		}
		return err
	})
	require.NoError(t, err)
	require.NotEmpty(t, out)
	return out
}

// documents are the Markdown files for people, relative to the root.
func documents(t *testing.T) []string {
	t.Helper()
	out := []string{"README.md", "CONTRIBUTING.md", "CHANGELOG.md"}
	for _, folder := range []string{"docs", "configs", "deploy", "extension"} {
		err := filepath.WalkDir(filepath.Join(root, folder), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".md" {
				return err
			}
			relative, err := filepath.Rel(root, path)
			out = append(out, filepath.ToSlash(relative))
			return err
		})
		require.NoError(t, err)
	}
	return out
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, path))
	require.NoError(t, err)
	return string(data)
}
