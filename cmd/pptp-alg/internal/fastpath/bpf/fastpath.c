// The fast path: programs at a device's ingress that carry a call's GRE packets in the place of conntrack, and one at
// the egress that sees which calls conntrack has carried. docs/fast-path.md has the whole picture.
//
// Whatever is not exactly a packet of a known call goes on to the kernel's ordinary path, untouched.
//
// `make bpf` compiles it, for both byte orders.

// SPDX-License-Identifier: MIT

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>

#define SECTION(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))

// What is in network byte order is compared with constants in it: nothing is turned around per packet but lengths.
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define NET16(x) ((__u16)((((x) & 0xff) << 8) | (((x) >> 8) & 0xff)))
#define FIRST(pair) ((__u32)(pair))
#define SECOND(pair) ((__u32)((pair) >> 32))
#define PAIR(a, b) ((__u64)(a) | (__u64)(b) << 32)
#define HALVES(a, b) ((__u32)(a) | (__u32)(b) << 16)
#define CALL_ID_OF(t) ((__u16)(t)->id)
#else
#define NET16(x) ((__u16)(x))
#define FIRST(pair) ((__u32)((pair) >> 32))
#define SECOND(pair) ((__u32)(pair))
#define PAIR(a, b) ((__u64)(a) << 32 | (__u64)(b))
#define HALVES(a, b) ((__u32)(a) << 16 | (__u32)(b))
#define CALL_ID_OF(t) ((__u16)((t)->id >> 48))
#endif

// What is put together on the stack is written in words of 64 bits, made with PAIR: before Linux 6.8 the verifier takes the second
// smaller write to one for the damage of a pointer, where the process has not got CAP_PERFMON.

static void *(*lookup)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static long (*redirect)(__u32 link, __u64 flags) = (void *)BPF_FUNC_redirect;
static long (*redirect_neigh)(__u32 link, const struct bpf_redir_neigh *hop, int size, __u64 flags) = (void *)BPF_FUNC_redirect_neigh;
static long (*pull_data)(struct __sk_buff *skb, __u32 length) = (void *)BPF_FUNC_skb_pull_data;
static long (*change_tail)(struct __sk_buff *skb, __u32 length, __u64 flags) = (void *)BPF_FUNC_skb_change_tail;
static long (*change_head)(struct __sk_buff *skb, __u32 length, __u64 flags) = (void *)BPF_FUNC_skb_change_head;
static long (*csum_update)(struct __sk_buff *skb, __u32 difference) = (void *)BPF_FUNC_csum_update;
static long (*load_relative)(const void *skb, __u32 offset, void *to, __u32 length, __u32 start) = (void *)BPF_FUNC_skb_load_bytes_relative;
static long (*ringbuf_output)(void *ringbuf, const void *data, __u64 size, __u64 flags) = (void *)BPF_FUNC_ringbuf_output;
static long (*tail_call)(void *ctx, void *programs, __u32 index) = (void *)BPF_FUNC_tail_call;

// The maps are made by the loader (maps.go), which puts them where these names are used.
extern char places, calls, ports, watched, state, sights, programs;

// tuple tells calls apart, in network byte order. The first 12 bytes are the key of calls and of watched.
struct tuple {
	__u64 addresses;	// source, destination
	__u64 id;		// Call ID, and zeros
};

// call is how the packets of a tuple leave. Addresses and Call ID are in network byte order. It fills a cache line.
struct call {
	__u32 generation;	// works while state has the same one
	__u32 arrives;		// at this link, if it is not 0; packets of others are passed on
	__u32 port;		// or at this one, if it is not 0: a port of the bridge by which they arrive
	__u32 link;		// by which they leave
	__u32 mark;		// that packets have on the ordinary path
	__u32 hop;		// of IPv4
	__u64 addresses;	// of the tuple whose it is
	__u16 src[2], dst[2];
	__u16 id;		// of the tuple
	__u16 call_id;
	__u16 mtu;		// bytes with the IP header
	__u16 flags;
	__u64 packets, bytes;	// bytes with the IP header, as conntrack counts
};

// bridge is a value of ports, whose keys are links: the Ethernet address of the bridge.
struct bridge {
	__u16 address[3], zero;
};

#define AF_INET 2
#define AF_INET6 10
#define LEAVES_BARE 1 // without an Ethernet header, as from PPP

// place holds two calls, in an array: whose they may be says a hash of the tuple. Most packets need no other lookup, and
// touch one cache line of it.
struct place {
	struct call call[2];
};

// other is a value of calls, where those are for which there was no place, and those with a next hop of IPv6.
struct other {
	struct call call;
	__u32 hop6[4];		// where call.hop is 0
};

struct state {
	__u32 generation;	// 0: the fast path is closed
	__u32 mask;		// number of places less 1
};

// sight tells that a packet left the router which conntrack has carried. Addresses and Call ID as it left.
struct sight {
	struct tuple leaves;
	__u64 generation_arrived;	// the link by which it arrived
	__u64 link_mark;		// the link by which it left
	__u64 next;			// Ethernet address that it went to, where the link is Ethernet, and zeros
};

// Words of 16 bits in the headers.
enum { VERSION, LENGTH, ID, FRAGMENT, TTL, CHECK, SRC, DST = SRC + 2, GRE = DST + 2, PROTOCOL, PAYLOAD, CALL_ID, WORDS };
#define HEADERS (WORDS * 2)

#define ANY_FRAGMENT NET16(0x3fff)	// more fragments, offset
#define GRE_IN_IP NET16(47)
#define PLAIN_HEADER NET16(0x4500)	// IPv4, without options
#define ENHANCED NET16(0x2001)		// RFC 2637, section 4.1: a key, version 1
#define ENHANCED_MASK NET16(0xef7f)	// sequence and acknowledgment numbers may be there or not
#define PPP_IN_GRE NET16(0x880b)

INLINE __u32 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

INLINE __u16 not16(__u16 x) { return ~x; }

INLINE const struct state *current(void)
{
	__u32 zero = 0;
	return lookup(&state, &zero);
}

// place_of says in which place a tuple's call may be; see the same in places.go.
INLINE __u32 place_of(const struct tuple *t, __u32 mask)
{
	__u32 h = (FIRST(t->addresses) ^ FIRST(t->id) * 0x9e3779b1) * 0x85ebca6b;
	h = ((h ^ h >> 15) + SECOND(t->addresses)) * 0xc2b2ae35;
	return (h ^ h >> 16) & mask;
}

// ONCE reads what may change meanwhile: there and then.
#define ONCE(x) (*(const volatile __typeof__(x) *)&(x))

INLINE int works(const struct call *c, const struct tuple *t, __u32 now)
{
	return ONCE(c->generation) == now && ONCE(c->addresses) == t->addresses && ONCE(c->id) == CALL_ID_OF(t);
}

// enhanced reports whether this is an unfragmented enhanced GRE packet without IP options.
INLINE int enhanced(const __u16 *w)
{
	return (w[VERSION] & NET16(0xff00)) == PLAIN_HEADER && (w[TTL] & NET16(0xff)) == GRE_IN_IP && !(w[FRAGMENT] & ANY_FRAGMENT) &&
	       (w[GRE] & ENHANCED_MASK) == ENHANCED && w[PROTOCOL] == PPP_IN_GRE;
}

INLINE void arrives_as(struct tuple *t, const __u16 *w)
{
	t->addresses = PAIR(HALVES(w[SRC], w[SRC + 1]), HALVES(w[DST], w[DST + 1]));
	t->id = PAIR(HALVES(w[CALL_ID], 0), 0);
}

// by_tos is the priority that the kernel gives a packet that it forwards.
INLINE __u32 by_tos(__u16 version_tos)
{
	switch (version_tos & NET16(0x18)) {
	case NET16(0x08):
		return 2; // TC_PRIO_BULK
	case NET16(0x10):
		return 6; // TC_PRIO_INTERACTIVE
	case NET16(0x18):
		return 4; // TC_PRIO_INTERACTIVE_BULK
	}
	return 0; // TC_PRIO_BESTEFFORT
}

// to_bridge reports whether a packet that arrives at a bridge's port is for the bridge itself, and of a station that can be one.
INLINE int to_bridge(__u32 port, const __u16 *ethernet)
{
	const struct bridge *b = lookup(&ports, &port);
	return b && !(ethernet[3] & NET16(0x0100)) && b->address[0] == ethernet[0] && b->address[1] == ethernet[1] && b->address[2] == ethernet[2];
}

// carry does with a packet what conntrack, NAT and forwarding would do. The IP header begins after link bytes. At a bridge's port what
// is for the bridge may be for another host than the port: its Ethernet address says it.
INLINE int carry(struct __sk_buff *skb, const __u32 link, const int at_port)
{
	if (skb->protocol != NET16(ETH_P_IP) || (!at_port && skb->pkt_type) || skb->vlan_present || skb->gso_size)
		return TC_ACT_UNSPEC;
	void *data = (void *)(long)skb->data;
	if (data + link + HEADERS > (void *)(long)skb->data_end) {
		if (skb->len < link + HEADERS || pull_data(skb, link + HEADERS))
			return TC_ACT_UNSPEC;
		data = (void *)(long)skb->data;
		if (data + link + HEADERS > (void *)(long)skb->data_end)
			return TC_ACT_UNSPEC;
	}
	__u16 *w = data + link;
	if (!enhanced(w) || !(w[TTL] & NET16(0xfe00)))
		return TC_ACT_UNSPEC;
	struct tuple t;
	arrives_as(&t, w);
	const struct state *s = current();
	if (!s || !s->generation)
		return TC_ACT_UNSPEC;
	__u32 now = s->generation, i = place_of(&t, s->mask);
	struct place *p = lookup(&places, &i);
	if (!p)
		return TC_ACT_UNSPEC;
	__u64 hop[3] = {}; // struct bpf_redir_neigh: a family, an address
	struct call *c = &p->call[0];
	if (!works(c, &t, now)) {
		c = &p->call[1];
		if (!works(c, &t, now)) {
			struct other *o = lookup(&calls, &t);
			if (!o || !works(&o->call, &t, now))
				return TC_ACT_UNSPEC;
			c = &o->call;
			hop[0] = PAIR(AF_INET6, ONCE(o->hop6[0]));
			hop[1] = PAIR(ONCE(o->hop6[1]), ONCE(o->hop6[2]));
			hop[2] = PAIR(ONCE(o->hop6[3]), 0);
		}
	}
	if ((at_port ? ONCE(c->port) : ONCE(c->arrives)) != skb->ifindex || (at_port && !to_bridge(skb->ifindex, data)))
		return TC_ACT_UNSPEC;

	// What the kernel would drop for its length or checksum is left to it.
	__u32 length = NET16(w[LENGTH]);
	if (length < HEADERS || length > ONCE(c->mtu) || length > skb->len - link)
		return TC_ACT_UNSPEC;
	__u32 sum = w[VERSION] + w[LENGTH] + w[ID] + w[FRAGMENT] + w[TTL] + w[SRC] + w[SRC + 1] + w[DST] + w[DST + 1];
	if (fold(sum + w[CHECK]) != 0xffff)
		return TC_ACT_UNSPEC;

	if (skb->len > link + length) { // small packets are padded on Ethernet
		if (change_tail(skb, link + length, 0))
			return TC_ACT_UNSPEC;
		data = (void *)(long)skb->data;
		if (data + link + HEADERS > (void *)(long)skb->data_end)
			return TC_ACT_UNSPEC;
		w = data + link;
	}

	// The memory of an element that was taken out of the hash table may be another call's at once: what was read until now is this
	// call's if it still is there.
	__u16 src0 = ONCE(c->src[0]), src1 = ONCE(c->src[1]), dst0 = ONCE(c->dst[0]), dst1 = ONCE(c->dst[1]), call_id = ONCE(c->call_id);
	__u32 out = ONCE(c->link), mark = ONCE(c->mark), hop4 = ONCE(c->hop);
	__u16 flags = ONCE(c->flags);
	if (!works(c, &t, now))
		return TC_ACT_UNSPEC;
	__sync_fetch_and_add(&c->packets, 1);
	__sync_fetch_and_add(&c->bytes, length);

	if (call_id != w[CALL_ID]) // the rest sums up to what it did: the header has a checksum
		csum_update(skb, (__u32)not16(w[CALL_ID]) + call_id);
	sum += not16(w[SRC]) + not16(w[SRC + 1]) + not16(w[DST]) + not16(w[DST + 1]) + not16(NET16(0x100));
	sum += src0 + src1 + dst0 + dst1;
	w[TTL] -= NET16(0x100);
	w[CHECK] = ~fold(sum);
	w[SRC] = src0;
	w[SRC + 1] = src1;
	w[DST] = dst0;
	w[DST + 1] = dst1;
	w[CALL_ID] = call_id;
	skb->mark = mark;
	skb->priority = by_tos(w[VERSION]);

	if (flags & LEAVES_BARE)
		return redirect(out, 0);
	if (!link && change_head(skb, ETH_HLEN, 0))
		return TC_ACT_SHOT; // no memory
	if (hop4)
		hop[0] = PAIR(AF_INET, hop4);
	return redirect_neigh(out, (void *)hop, sizeof(struct bpf_redir_neigh), 0);
}

// Ingress of devices whose packets have an Ethernet header, of those whose packets begin with IP (PPP, tun), and of bridges' ports.
SECTION("pptp/ethernet") int ethernet(struct __sk_buff *skb) { return carry(skb, ETH_HLEN, 0); }
SECTION("pptp/bare") int bare(struct __sk_buff *skb) { return carry(skb, 0, 0); }
SECTION("pptp/port") int port(struct __sk_buff *skb) { return carry(skb, ETH_HLEN, 1); }

// Egress of every device by which calls' packets may leave: tells once in a generation that one did.
SECTION("pptp/watch") int watch(struct __sk_buff *skb)
{
	__u16 w[WORDS];
	if (skb->protocol != NET16(ETH_P_IP) || skb->vlan_present || !skb->ingress_ifindex)
		return TC_ACT_UNSPEC;
	if (load_relative(skb, 0, w, sizeof(w), BPF_HDR_START_NET) || !enhanced(w))
		return TC_ACT_UNSPEC;
	struct sight s = {};
	arrives_as(&s.leaves, w);
	__u32 *seen = lookup(&watched, &s.leaves);
	const struct state *c = current();
	if (!seen || !c || !c->generation || *seen == c->generation)
		return TC_ACT_UNSPEC;
	__u32 now = c->generation;
	s.generation_arrived = PAIR(now, skb->ingress_ifindex);
	s.link_mark = PAIR(skb->ifindex, skb->mark);
	load_relative(skb, 0, &s.next, ETH_ALEN, BPF_HDR_START_MAC);
	if (!ringbuf_output(&sights, &s, sizeof(s), 0)) // full: the next packet tells it
		*seen = now;
	return TC_ACT_UNSPEC;
}

// Where the kernel has no links that end with the process (before 6.6), these are attached instead and call the
// programs above. The kernel empties the array when its last descriptor is closed: without the daemon they do nothing.
//
// Each has all the stack that there may be: where programs are interpreted, what is called gets the caller's, and from 6.9 on Linux
// gives a caller what it needs itself, without regard for what it calls, which then writes over the kernel's stack.
INLINE void all_stack(void)
{
	asm volatile("r0 = 0\n*(u64 *)(r10 - 512) = r0" ::: "r0", "memory");
}

SECTION("pptp/ethernet_stub") int ethernet_stub(struct __sk_buff *skb)
{
	all_stack();
	tail_call(skb, &programs, 0);
	return TC_ACT_UNSPEC;
}

SECTION("pptp/bare_stub") int bare_stub(struct __sk_buff *skb)
{
	all_stack();
	tail_call(skb, &programs, 1);
	return TC_ACT_UNSPEC;
}

SECTION("pptp/watch_stub") int watch_stub(struct __sk_buff *skb)
{
	all_stack();
	tail_call(skb, &programs, 2);
	return TC_ACT_UNSPEC;
}

SECTION("pptp/port_stub") int port_stub(struct __sk_buff *skb)
{
	all_stack();
	tail_call(skb, &programs, 3);
	return TC_ACT_UNSPEC;
}
