"""A training by argparse, in the style of public examples."""

import argparse

import tunesvc

OPTIMIZERS = ["sgd", "adam", "adamw"]


def get_args():
    parser = argparse.ArgumentParser(description="train")
    parser.add_argument("data", nargs="?", default="data", help="path to dataset")
    parser.add_argument("-b", "--batch-size", type=int, default=64, metavar="N")
    parser.add_argument("--lr", "--learning-rate", default=0.01, type=float, dest="lr")
    parser.add_argument("--momentum", default=0.9, type=float)
    parser.add_argument("--weight-decay", default=1e-4, type=float)
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="sgd")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--no-cuda", action="store_true", default=False)
    parser.add_argument("--nesterov", action="store_true")
    parser.add_argument("--hidden", type=int, nargs="+", default=[32])
    parser.add_argument("--gamma", default=0.7)
    parser.add_argument("--clip", type=float, default=float("inf"))
    for name in ("a", "b"):
        parser.add_argument(f"--{name}")
    group = parser.add_argument_group("model")
    group.add_argument("--layers", type=int, default=2)
    group.add_argument("--amp", action=argparse.BooleanOptionalAction, default=True)
    return parser.parse_args()


if __name__ == "__main__":
    args = get_args()
    loss = (args.lr - 0.1) ** 2 + args.batch_size / 1000
    for e in range(args.epochs):
        tunesvc.current_trial().report(e, loss=loss + 1 / (e + 1))
    print(args)
