// Package traffic holds the two ends of test traffic: [RunLoad] sends sequence-numbered spans over OTLP gRPC or HTTP, and
// [Sink] receives OTLP traces, metrics and logs and says what arrived. Every span carries its run, its sequence number and
// the size of its trace, so that the two ends together tell exactly which acknowledged span was lost, repeated or dropped.
//
// The package starts no process and reads no configuration file: that is left to the command line and to the tests.
package traffic
