// Package fastpath carries GRE packets of calls in eBPF programs at the devices by which they arrive, in the place of
// conntrack, which goes on having their entries.
//
// A Path is the programs and their maps. It knows tuples and links, and nothing of calls or routes: who uses it says
// which packets may be carried and how they leave. Packets of which it does not know exactly that go on to the kernel's
// ordinary path.
//
// Everything works in generations. A Path carries only what was put into the current one, so that a single write to a
// map closes it all; see [Path.Halt]. In a new generation a Path first tells which packets left the router by the
// ordinary path: see [Path.Await] and [Path.Sights].
//
// The programs end with the process, however it ends: those that are attached with links of tcx (Linux 6.6) because the
// links do, and those at a clsact queueing discipline because what they call is gone then.
//
// The sources are in bpf/fastpath.c, the objects beside it are what `make bpf` makes of it. The build tag nofastpath
// leaves the package's inside out.
package fastpath
