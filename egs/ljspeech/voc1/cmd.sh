# Prefixes of the two kinds of jobs. Empty: run here. On a cluster, for example
#   train_cmd="srun --cpus-per-task=4"      cuda_cmd="srun --gres=gpu:1"
#   train_cmd="slurm.pl --num_threads 4 exp/log/%j.log"  (Kaldi's, if it is on PATH)
train_cmd=${train_cmd:-}
cuda_cmd=${cuda_cmd:-}
