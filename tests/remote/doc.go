// Package remote proves remote configuration on the real binary, with real traffic, against the server of opamp-go.
package remote
