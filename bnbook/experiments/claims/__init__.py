"""One file for each measured claim; `bnbook.experiments` says what it holds."""

import os

# Experiments beside the package's own. The variable reaches the worker processes as well.
__path__ += [folder for folder in [os.environ.get("BNBOOK_EXPERIMENTS")] if folder]
