"""What a config may put into the fields that all priors have."""

from movq_jax.errors import UserError
from movq_jax.fields import check_choice, check_share, check_size
from movq_jax.models.transformer import ATTENTIONS

WHERE = "config.model"
DTYPES = ("float32", "bfloat16")


def check_prior(
    *,
    width: int,
    depth: int,
    heads: int,
    head_multiple: int,
    dropout: float,
    num_classes: int,
    attention: str,
    dtype: str,
) -> None:
    """The fields of a trunk. A head's width must be a multiple of `head_multiple`.

    Raises:
      UserError: one of them makes no sense.
    """
    check_size(f"{WHERE}.width", width)
    check_size(f"{WHERE}.depth", depth)
    check_size(f"{WHERE}.heads", heads)
    check_share(f"{WHERE}.dropout", dropout)
    if dropout == 1:
        raise UserError(f"{WHERE}.dropout is 1, which drops everything: use 0.1")
    check_size(f"{WHERE}.num_classes", num_classes, least=0)
    check_choice(f"{WHERE}.attention", attention, ATTENTIONS)
    check_choice(f"{WHERE}.dtype", dtype, DTYPES)
    if attention == "cudnn":
        head_multiple = 8
        if dtype != "bfloat16":
            raise UserError(
                f"{WHERE}.attention is 'cudnn', which works in 16 bits, and "
                f"{WHERE}.dtype is {dtype!r}; use bfloat16, or the attention 'xla'"
            )
    if width % (heads * head_multiple):
        each = f", each a multiple of {head_multiple}" if head_multiple > 1 else ""
        raise UserError(
            f"{WHERE}.heads is {heads}, which does not cut {WHERE}.width, {width}, "
            f"into equal parts{each}: give another number of heads"
        )
