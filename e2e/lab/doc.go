// Package lab builds small networks out of network namespaces: hosts, switches
// between them, routers with a firewall, and the daemon on a router.
//
// Nothing in it needs an external program, a name on disk or the machine's own
// network. A namespace has no name; it lives as long as a file descriptor of
// this process or a socket inside it. So a lab is gone when the process is,
// whatever became of it, and any number of labs can exist side by side with the
// same addresses. The daemon is started so that the kernel kills it together
// with the thread that started it.
//
// Code gets "into" a host through Host.Do: the calling goroutine's thread
// enters the namespace, runs the function and comes back. A socket stays in the
// namespace it was opened in, so only opening has to happen inside; using it can
// happen anywhere.
//
// The package knows nothing about tests. It returns errors, and Lab.Describe
// writes everything one wants to see about a lab that misbehaved.
package lab
