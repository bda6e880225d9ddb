"""Packets that belong to no flow, made by hand: what conntrack cannot place, does not track, or reassembles.

`strays TO PORT`: one of each kind to an address outside, and how many were sent. `ack TO PORT OWN_PORT`: a segment of no connection; the
letters of the TCP flags of what answers it within half a second, or `-`. `about TO PORT OTHER OTHERS_PORT`: an error about a segment of a
connection that the far end opened to somebody else.
"""
import socket
import struct
import sys

FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32


def own(to):
    """The source that the kernel chooses."""
    with socket.socket(family(to), socket.SOCK_DGRAM) as probe:
        probe.connect((to, 9))
        return probe.getsockname()[0]


def family(to):
    return socket.AF_INET6 if ':' in to else socket.AF_INET


def packed(address):
    return socket.inet_pton(family(address), address)


def checksum(data):
    data += b'\0' * (len(data) % 2)
    total = sum(struct.unpack(f'!{len(data) // 2}H', data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def summed(source, to, protocol, segment, at):
    """With its checksum, over addresses too where the protocol wants it."""
    if family(to) == socket.AF_INET6:
        pseudo = packed(source) + packed(to) + struct.pack('!IHBB', len(segment), 0, 0, protocol)
    else:
        pseudo = packed(source) + packed(to) + struct.pack('!BBH', 0, protocol, len(segment))
    pseudo = b'' if protocol == 1 else pseudo
    return segment[:at] + struct.pack('!H', checksum(pseudo + segment)) + segment[at + 2:]


def tcp(source, to, own_port, port, flags, data=b''):
    segment = struct.pack('!HHIIBBHHH', own_port, port, 1000, 2000 if flags & ACK else 0, 0x50, flags, 512, 0, 0)
    return summed(source, to, 6, segment + data, 16)


def udp(source, to, own_port, port, data):
    return summed(source, to, 17, struct.pack('!HHHH', own_port, port, 8 + len(data), 0) + data, 6)


def ip(source, to, protocol, payload, piece=None, options=b''):
    """A whole packet, or a piece of one: where it stands there, whether more follow, and which one that is."""
    at, more, ident = piece or (0, 0, 1)
    if family(to) == socket.AF_INET6:
        if piece:
            payload = struct.pack('!BBHI', protocol, 0, at | more, ident) + payload
            protocol = 44
        return struct.pack('!IHBB', 0x60000000, len(payload), protocol, 64) + packed(source) + packed(to) + payload
    length = 20 + len(options)
    word = at >> 3 | more << 13
    head = struct.pack('!BBHHHBBH', 0x40 | length // 4, 0, length + len(payload), ident, word, 64, protocol, 0)
    return head + packed(source) + packed(to) + options + payload


def send(to, packet):
    with socket.socket(family(to), socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.sendto(packet, (to, 0))


def errors(source, to, port):
    """About packets that nobody sent: one of the far end's, one of its own, one of a stranger's."""
    six = family(to) == socket.AF_INET6
    stranger = '2001:db8:fe::100' if six else '198.51.101.100'
    for a, b in ((to, source), (source, to), (stranger, source), (to, stranger)):
        quoted = ip(a, b, 17, udp(a, b, port, 5555, b'quoted'))
        kinds = ((1, 0), (1, 4), (2, 0), (3, 0), (4, 1), (137, 0)) if six else ((3, 1), (3, 3), (3, 4), (11, 0), (12, 0), (5, 1))
        for kind, code in kinds:
            yield bytes([kind, code, 0, 0]) + struct.pack('!I', 1280) + quoted


def strays(to, port):
    source = own(to)
    six = family(to) == socket.AF_INET6
    all_of_them = []
    ways = [RST, FIN, FIN | ACK, ACK, SYN | ACK, RST | ACK, PSH | ACK, 0, FIN | PSH | URG, SYN | FIN, SYN | RST]
    for number, flags in enumerate(ways):
        segment = tcp(source, to, 40000 + number, port, flags)
        all_of_them.append(ip(source, to, 6, segment))
        # A checksum that is wrong, a header that is cut off, and options that many a firewall stumbles over.
        all_of_them.append(ip(source, to, 6, segment[:16] + b'\1\1' + segment[18:]))
        all_of_them.append(ip(source, to, 6, segment[:12]))
        if not six:
            all_of_them.append(ip(source, to, 6, segment, options=b'\x07\x07\x04\0\0\0\0\0'))
    datagram = udp(source, to, 41000, port, b'datagram')
    all_of_them += [ip(source, to, 17, datagram[:6] + b'\1\1' + b'datagram'), ip(source, to, 17, datagram[:5])]
    icmp = 58 if six else 1
    echo_reply = bytes([129 if six else 0, 0, 0, 0]) + struct.pack('!HH', port, 1) + b'unasked'
    odd = (130, 131, 132, 133, 134, 135, 136, 139, 141, 143, 200) if six else (9, 10, 13, 15, 17, 30, 200)
    messages = [echo_reply, *errors(source, to, port), *(bytes([kind, 0, 0, 0]) + bytes(20) for kind in odd)]
    for message in messages:
        all_of_them.append(ip(source, to, icmp, summed(source, to, icmp, message, 2)))
    for protocol in (4, 33, 41, 47, 50, 51, 132, 136, 253):
        all_of_them.append(ip(source, to, protocol, struct.pack('!HHI', 42000, port, 7) + bytes(24)))
    long = udp(source, to, 43000, port, bytes(56))
    for ident, pieces in enumerate(
        (
            ((0, long, 1),), ((64, long, 0),), ((0, long[:8], 1), (8, long[8:], 0)), ((0, long[:16], 1), (8, long[8:], 0)),
            ((8, long[8:], 0), (0, long[:8], 1)), ((0, long, 0),), ((0, tcp(source, to, 43001, port, RST)[:8], 1),),
            ((8, tcp(source, to, 43001, port, RST)[8:], 0), (0, tcp(source, to, 43001, port, RST)[:8], 1)),
        )
    ):
        protocol = 17 if ident < 6 else 6
        for place, piece, more in pieces:
            all_of_them.append(ip(source, to, protocol, piece, (place, more, 100 + ident)))
    if six:
        for header in (0, 43, 60):
            extended = bytes([17, 0, 1, 4, 0, 0, 0, 0]) + datagram
            all_of_them.append(ip(source, to, header, extended))
            reset = bytes([6, 0, 1, 4, 0, 0, 0, 0]) + tcp(source, to, 44000, port, RST)
            all_of_them.append(ip(source, to, header, reset))
    sent = 0
    for packet in all_of_them:
        try:
            send(to, packet)
            sent += 1
        except OSError as refused:
            print(refused, packet.hex(), file=sys.stderr)
    print(sent)


def ack(to, port, own_port):
    kind = family(to)
    with socket.socket(kind, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
        raw.settimeout(0.5)
        # Who listens keeps this kernel from answering for us.
        source = own(to)
        send(to, ip(source, to, 6, tcp(source, to, own_port, port, ACK, b'news')))
        try:
            while True:
                heard, sender = raw.recvfrom(512)
                start = 0 if kind == socket.AF_INET6 else (heard[0] & 15) * 4
                ports = struct.unpack('!HH', heard[start:start + 4])
                if ports == (port, own_port) and sender[0] == to:
                    flags = heard[start + 13]
                    print(''.join(letter for bit, letter in enumerate('FSRPAU') if flags >> bit & 1))
                    return
        except TimeoutError:
            print('-')


def about(to, port, other, others_port):
    six = family(to) == socket.AF_INET6
    source, protocol = own(to), 58 if six else 1
    quoted = ip(to, other, 6, tcp(to, other, port, others_port, ACK))
    message = bytes([1, 4] if six else [3, 3]) + bytes(6) + quoted
    send(to, ip(source, to, protocol, summed(source, to, protocol, message, 2)))


to, port, *rest = sys.argv[2:]
match sys.argv[1]:
    case 'strays':
        strays(to, int(port))
    case 'ack':
        ack(to, int(port), int(rest[0]))
    case 'about':
        about(to, int(port), rest[0], int(rest[1]))
