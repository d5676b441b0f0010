"""A training by click."""

import click


@click.command()
@click.option("--lr", "-l", default=1e-3, show_default=True, help="rate")
@click.option("--dropout", type=click.FloatRange(0, 0.5), default=0.1)
@click.option("--layers", type=click.IntRange(1, 8), default=2)
@click.option("--model", type=click.Choice(["mlp", "cnn"]), default="mlp")
@click.option("--shuffle/--no-shuffle", default=True)
@click.option("--seed", default=0)
@click.option("--tags", multiple=True)
@click.argument("data", type=click.Path(exists=True))
def main(lr, dropout, layers, model, shuffle, seed, tags, data):
    click.echo(f"{lr} {dropout} {layers} {model} {shuffle} {seed} {tags} {data}")


if __name__ == "__main__":
    main()
