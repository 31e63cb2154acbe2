"""Numbers of seven bits a byte, as Protobuf and HPACK have them. A program that needs no more of wire.py starts quickly."""


def varint(value: int) -> bytes:
    """A number that is not below 0."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
