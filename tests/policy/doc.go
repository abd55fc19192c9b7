// Package policy holds the rules of this repository that a compiler does not see: what the manifest, the generated sources,
// the built binary, the table of components and the packages' imports must have in common. Each failure says why the rule is there.
package policy
