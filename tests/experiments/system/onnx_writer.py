"""Writes small .onnx files for tests: protocol buffers with the field numbers of onnx.proto3."""

import struct


def varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number, value):
    """One field: an integer, or bytes with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def tensor(name, array, kind, *, packed=True, raw=True, external=False):
    """TensorProto. With raw=False the values are in float_data, with packed=False one by one."""
    dims = array.shape
    out = field(1, b"".join(map(varint, dims))) if packed else b"".join(field(1, d) for d in dims)
    out += field(2, kind) + field(8, name)
    if external:
        return out + field(14, 1)
    if raw:
        return out + field(9, array.tobytes())
    values = [struct.pack("<f", value) for value in array.ravel()]
    return out + (field(4, b"".join(values)) if packed else b"".join(b"\x25" + v for v in values))


def node(operator, inputs, outputs, attributes=b""):
    parts = [field(1, name) for name in inputs] + [field(2, name) for name in outputs]
    return field(1, b"".join(parts) + field(3, "node") + field(4, operator) + attributes)


def group(count):
    """The attribute "group" of a convolution."""
    return field(5, field(1, "group") + field(3, count) + field(20, 2))


def constant(name, value):
    """A Constant node with a TensorProto."""
    return node("Constant", [], [name], field(5, field(1, "value") + field(5, value)))


def initializer(value):
    return field(5, value)


def model(*parts):
    """ModelProto: version, producer, graph."""
    return field(1, 8) + field(2, "test") + field(7, b"".join(parts) + field(2, "graph"))
