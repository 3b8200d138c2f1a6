// Package bench measures the daemon against the kernel's own PPTP helper, plain
// masquerading and plain forwarding, in the same network lab, on the same
// machine, in turn.
//
// # How the data plane is measured
//
// A lab is three namespaces in a row, connected by two veth pairs: inside,
// router, outside. The calls are real: emulated clients and servers
// (package peer) set them up over TCP through whatever the router has, and
// exchange a packet each way. Then a packet socket on one side sends the GRE
// packets of all calls in a random order, up to 1,024 in one system call, and
// the device on the other side drops and counts them.
//
// The kernel carries a packet from the sender's system call through the router
// to the far device before the call returns. So the processor time of the
// sending thread is what the packets cost, and a rate is packets per second of
// one core. Other programs on the machine take turns with the thread and do not
// count, except that they wear out its caches; that is why the competitors are
// measured in short turns, both directions each, again and again. Their labs
// exist side by side. Results are medians, and ratios are what counts: another
// machine has other absolute figures.
//
// # The fast path
//
// The fast path is measured with a bridge at the router's inside, and so are plain
// forwarding and pptp-alg without it, in the same rounds. Its calls are set up as
// all others, and are on it in both directions before the first turn. Some stages
// are measured again with a firewall that sees packets at the bridge's port.
//
// # Documents
//
// Results are written as JSON. Tables and curves in the documentation are made
// of these files and of nothing else (Render), and a test compares them.
package bench
