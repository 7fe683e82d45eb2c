"""What has to be known of an ATen operator to follow its tensors, read from its schema once."""

__all__ = ["Operation", "operations"]

_ANYWHERE = {
    "aten::copy_",
    "aten::_foreach_copy_",
    "aten::_to_copy",
    "aten::to",
    "aten::set_",
    "aten::lift_fresh",
    "aten::_local_scalar_dense",
    "aten::is_pinned",
    "aten::_pin_memory",
    "aten::_has_compatible_shallow_copy_type",
}
"""Their operands may be on different devices."""
_MOVES = {"aten::_to_copy", "aten::clone", "aten::copy", "aten::to"}
_INDEXED = {
    "aten::index",
    "aten::index_put",
    "aten::index_put_",
    "aten::_index_put_impl_",
    "aten::_unsafe_index",
    "aten::_unsafe_index_put",
}
_ON_HOST = {
    "aten::_pack_padded_sequence": (1,),
    "aten::_pad_packed_sequence": (1,),
    "aten::_ctc_loss": (2, 3),
    "aten::_ctc_loss_backward": (3, 4),
    "aten::lstm": (1,),
    "aten::gru": (1,),
    "aten::rnn_tanh": (1,),
    "aten::rnn_relu": (1,),
}
"""Lengths, which CUDA's operators want on the host too; for the recurrent ones if they are so."""
_RETURNS_LENGTHS = {"aten::_pack_padded_sequence", "aten::_pad_packed_sequence"}
_LIST_TYPES = ("Tensor[]", "List[Tensor]", "List[Optional[Tensor]]", "Optional[List[Tensor]]")


class Operation:
    """An operator.

    Attributes:
        name: ``"aten::add"``.
        run: calls it.
        tensors: positions of arguments that are a tensor.
        leading: how many of the first arguments these are; None: others are among them.
        lists: positions of arguments that are a list of tensors.
        named: names of such arguments that are given by keyword.
        device: whether it takes a device, as factories do.
        generator: whether it takes a generator of random numbers.
        random: whether it draws from the default one if it is given none.
        size: position of the shape of a factory's result; None: it has none, or no factory.
        checked: whether its operands have to be on one device.
        foreach: whether its lists are handled element by element.
        indices: whether its second argument is a list of indices, which may be on the host.
        returns_lengths: whether the last of its results is on the host.
        writes: whether it changes an operand instead of returning something fresh.
        resizes: whether that may become larger.
        views: whether its result shares the memory of an operand.
        moves: whether ``Tensor.to`` is made of it.
        copies: whether it is ``copy_``.
        special: whether more than ``tensors`` has to be looked at before it is called.
    """

    __slots__ = (
        *("name", "run", "tensors", "leading", "special", "lists", "named", "device"),
        *("generator", "random", "size", "checked", "foreach", "indices", "returns_lengths"),
        *("writes", "resizes", "views", "moves", "copies"),
    )

    def __init__(self, operator, composite, random):
        schema = operator._schema
        overload = getattr(operator, "_overloadname", "")
        self.name = name = schema.name
        self.run = getattr(operator, "_op", operator)
        self.indices = name in _INDEXED
        on_host = _ON_HOST.get(name, ())
        if name.rpartition("::")[2] in ("lstm", "gru", "rnn_tanh", "rnn_relu"):
            on_host = on_host if overload == "data" else ()
        kinds = [str(argument.type) for argument in schema.arguments]
        positional = [not argument.kwarg_only for argument in schema.arguments]
        self.tensors = tuple(
            position
            for position, kind in enumerate(kinds)
            if positional[position] and kind in ("Tensor", "Optional[Tensor]", "Tensor?")
            if position not in on_host
        )
        contiguous = self.tensors == tuple(range(len(self.tensors)))
        self.leading = len(self.tensors) if contiguous else None
        self.lists = tuple(
            position
            for position, kind in enumerate(kinds)
            if positional[position] and kind in _LIST_TYPES
            if not (self.indices and position == 1)
        )
        self.named = tuple(
            argument.name
            for argument, kind in zip(schema.arguments, kinds)
            if argument.kwarg_only and ("Tensor" in kind)
        )
        names = [argument.name for argument in schema.arguments]
        self.device = "device" in names
        self.generator = "generator" in names
        self.random = random
        self.size = names.index("size") if self.device and "size" in names else None
        self.checked = not (name in _ANYWHERE or name.startswith(("prim::", "c10d", "_c10d")))
        self.foreach = name.startswith("aten::_foreach_")
        self.returns_lengths = name in _RETURNS_LENGTHS
        self.writes = bool(schema.is_mutable)
        self.resizes = self.writes and (
            "out" in overload or name in ("aten::resize_", "aten::resize_as_")
        )
        self.views = not composite and any(
            result.alias_info is not None and not result.alias_info.is_write
            for result in schema.returns
        )
        self.moves = name in _MOVES
        self.copies = name == "aten::copy_"
        looked_at = (self.lists, self.named, self.device, self.generator, self.moves, self.indices)
        self.special = any(looked_at) or self.returns_lengths


def operations(torch):
    """Gives a function from torch's operator to ``Operation``; None: not an ATen operator."""
    composite = torch._C._dispatch_has_kernel_for_dispatch_key
    seeded = torch.Tag.nondeterministic_seeded

    def learn(operator):
        if getattr(operator, "_schema", None) is None:
            return None
        try:
            implicit = composite(operator.name(), "CompositeImplicitAutograd")
        except RuntimeError:  # prim::device of a tensor's subclass, which the dispatcher lacks
            return None
        return Operation(operator, implicit, seeded in operator.tags)

    return learn
