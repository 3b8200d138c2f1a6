'use strict';
'require view';
'require poll';
'require fs';
'require dom';

/* One page: what `pptp-alg status --json` says, read again every few seconds. */

const program = '/usr/sbin/pptp-alg';

/* So many calls a browser lays out every few seconds without trouble, also that of a phone. */
const shown = 200;

/* Daemons of other versions may say less, or what this page does not know. */
function list(v) {
	return Array.isArray(v) ? v : [];
}

function duration(ms) {
	if (!isFinite(ms)) return '–';
	const s = Math.max(0, Math.floor(ms / 1000));
	const d = Math.floor(s / 86400), h = Math.floor(s / 3600) % 24, m = Math.floor(s / 60) % 60;
	if (d) return together('%dd %dh').format(d, h);
	if (h) return together('%dh %dm').format(h, m);
	if (m) return together('%dm %ds').format(m, s % 60);
	return '%ds'.format(s);
}

/* A Call ID is a number, 0 too; null while it is not known. */
function callID(id) {
	return id == null ? '–' : String(id);
}

/* What belongs together stays on one line. */
function together(s) {
	return s.replaceAll(' ', '\u00a0');
}

function endpoint(e) {
	return e ? together('%s · %s').format(e.address || '–', callID(e.call_id)) : '–';
}

/* What the other side sees, where that is something else. */
function seen(e) {
	return e ? together('%s · %s').format(e.translated_address || '–', callID(e.translated_call_id)) : '–';
}

function traffic(packets, bytes) {
	return packets == null ? _('not counted') : together('%d / %1024mB'.format(packets, bytes));
}

/* Which way a call's packets take; the words are those of "pptp-alg status". */
function path(f) {
	if (!f) return '–';
	if (f.to_server && f.to_client) return _('fast');
	return f.to_server || f.to_client ? together(_('half fast')) : _('ordinary');
}

/* Why one that is up does not take the fast path, or one way only. */
function why(c) {
	const f = c.fast_path;
	if (!f || !f.reason || c.state != 'established') return '';
	if (f.to_server) return _('ordinary path to the client: %s').format(f.reason);
	if (f.to_client) return _('ordinary path to the server: %s').format(f.reason);
	return _('ordinary path: %s').format(f.reason);
}

function table(head, rows, nothing) {
	const t = E('table', { 'class': 'table cbi-section-table' }, [
		E('tr', { 'class': 'tr table-titles' }, head.map(h => E('th', { 'class': 'th' }, [ h ])))
	]);
	rows.forEach(r => t.appendChild(E('tr', { 'class': 'tr' }, r.map((c, i) =>
		E('td', { 'class': 'td', 'data-title': head[i] }, [ c ])))));
	if (!rows.length)
		t.appendChild(E('tr', { 'class': 'tr placeholder' }, [ E('td', { 'class': 'td', 'colspan': head.length }, [ nothing ]) ]));
	return t;
}

function liveRow(c, now, fast) {
	const state = [ c.state || '–' ];
	if (c.warning)
		state.push(E('br'), E('em', { 'class': 'warning' }, [ c.warning ]));
	if (why(c))
		state.push(E('br'), E('em', {}, [ why(c) ]));
	return [
		endpoint(c.client), seen(c.client), endpoint(c.server), E('span', {}, state), fast ? path(c.fast_path) : null,
		duration(now - Date.parse(c.since)),
		traffic(c.packets_from_client, c.bytes_from_client),
		traffic(c.packets_from_server, c.bytes_from_server)
	].filter(cell => cell != null);
}

function endedRow(c, now) {
	return [
		duration(now - Date.parse(c.ended)), endpoint(c.client), endpoint(c.server),
		duration(Date.parse(c.ended) - Date.parse(c.since)),
		[ c.reason, c.diagnosis ].filter(Boolean).join('; ')
	];
}

function render(s, now) {
	const connections = list(s.connections), unread = connections.filter(c => c.unparsed);
	/* What needs attention is not among those that are left out. */
	const calls = list(s.calls), first = calls.filter(c => c.warning).concat(calls.filter(c => !c.warning)).slice(0, shown);
	const fast = calls.some(c => c.fast_path);
	const head = [ _('Client · Call ID'), _('Server sees'), _('Server · Call ID'), _('State'), fast ? _('Path') : null, _('Age'), _('From client'), _('From server') ];
	return [
		E('p', {}, [ _('pptp-alg %s, running for %s: %d calls on %d control connections.').format(
			s.version || '–', duration(now - Date.parse(s.started)), calls.length, connections.length) ]),
		/* Absent where it is not wanted; else "on", or why there is none. */
		s.fast_path && s.fast_path != 'on' ? E('p', {}, [ E('em', { 'class': 'warning' }, [ s.fast_path ]) ]) : '',
		E('h3', {}, [ _('Calls') ]),
		table(head.filter(h => h != null), first.map(c => liveRow(c, now, fast)), _('No call is up.')),
		calls.length > first.length ? E('p', {}, [ _('And %d more, which "pptp-alg status" shows.').format(calls.length - first.length) ]) : '',
		unread.length ? E('h3', {}, [ _('Control connections that are not understood') ]) : '',
		unread.length ? table([ _('Client'), _('Server'), _('Reason') ],
			unread.slice(0, shown).map(c => [ (c.client || {}).address || '–', (c.server || {}).address || '–', c.unparsed ]), '') : '',
		E('h3', {}, [ _('Calls that ended') ]),
		table([ _('Ago'), _('Client · Call ID'), _('Server · Call ID'), _('Lasted'), _('Reason') ],
			list(s.ended).slice(0, 20).map(c => endedRow(c, now)), _('None yet.'))
	];
}

function failure(err) {
	if (err.name == 'PermissionError')
		return E('div', { 'class': 'alert-message warning' }, [
			E('h4', {}, [ _('This login may not see the calls') ]),
			E('p', {}, [ _('Its permissions lack "luci-app-pptp-alg"; right after the installation, log out and in again.') ])
		]);
	return E('div', { 'class': 'alert-message warning' }, [
		E('h4', {}, [ _('The daemon does not answer') ]),
		E('p', {}, [ _('Is it running? Start it with "service pptp-alg start".') ]),
		E('pre', {}, [ err.message || String(err) ])
	]);
}

return view.extend({
	load() {
		return fs.exec_direct(program, [ 'status', '--json' ], 'json').then(
			s => render(s, Date.now()), err => failure(err));
	},

	render(content) {
		const body = E('div', {}, content);
		poll.add(() => this.load().then(c => dom.content(body, c)), 5);
		return E([], [ E('h2', {}, [ _('PPTP calls') ]), body ]);
	},

	handleSave: null,
	handleSaveApply: null,
	handleReset: null
});
