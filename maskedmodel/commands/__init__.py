"""Each verb of the command line as a function: paths and names in, a value out that prints as its own summary."""

from maskedmodel.commands.adapt import finetune as finetune
from maskedmodel.commands.evaluate import embed as embed
from maskedmodel.commands.evaluate import probe as probe
from maskedmodel.commands.health import doctor as doctor
from maskedmodel.commands.pictures import preview as preview
from maskedmodel.commands.pictures import reconstruct as reconstruct
from maskedmodel.commands.predicting import predict as predict
from maskedmodel.commands.train import pretrain as pretrain
from maskedmodel.commands.weights import export as export
from maskedmodel.commands.weights import import_weights as import_weights
from maskedmodel.comparison.compare import compare as compare
