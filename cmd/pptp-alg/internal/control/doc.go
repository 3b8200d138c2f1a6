// Package control is the daemon's control socket and its client.
//
// The socket is a Unix stream socket. A request is one line of JSON,
//
//	{"command":"status","args":{...}}
//
// with args left out where a command needs none. The answer is one line too: the
// command's document, or {"error":"..."}. A connection carries as many requests as
// the client likes, one after the other.
//
// Some commands are streams: the answer is a line for each event, until the client
// leaves. A client that reads too slowly is told how many it lost, and one that does
// not read at all is disconnected.
//
// # Nothing a client does holds the daemon up
//
// Each client has a goroutine of its own; a request is bounded in size, a line
// and an answer in time, and the clients in number. A client that sends half a
// request or does not read is disconnected.
//
// # One daemon
//
// [Listen] holds a lock on a file beside the socket for as long as the server
// lives. The kernel lets go of it when the process ends, however it ends. So a
// socket left by a dead daemon is known to be dead and is replaced, and a second
// daemon is refused before it touches anything.
package control
