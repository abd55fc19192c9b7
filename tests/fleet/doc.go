// Package fleet holds one file per promise of the control plane, each shown on a real `collie server` and real agents. The programs are
// those of `make build`, `make build-test` and `make build-upstream`; the package itself holds no code.
package fleet
