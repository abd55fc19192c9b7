// Package bench measures on real processes, side by side in one run: `make bench`. It asserts nothing; its figures are
// ratios of CPU per span between variants that ran in turn on the same core, several rounds each, of which the median counts.
// BenchmarkControlPlane has nothing to compare with: it prints what a server of 10,000 agents reaches beside what it is bound to.
package bench
