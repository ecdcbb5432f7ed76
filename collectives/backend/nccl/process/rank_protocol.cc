#include "collectives/backend/nccl/process/rank_protocol.h"

#include <string_view>

namespace shardproof {
namespace {

// So that a message fits into a socket's buffer.
constexpr size_t kMostWords = size_t{8} << 10;

Status Damaged() {
  return Internal("a message between two processes of a rank is not whole");
}

}  // namespace

MessageBytes Encode(const RankSetup& setup) {
  Writer writer;
  writer.Put(RankCall::kSetup);
  writer.PutList(setup.library);
  writer.Put(setup.emulated_gpus);
  writer.Put(setup.gpu);
  writer.Put(setup.rank);
  writer.Put(setup.ranks);
  writer.Put(static_cast<int64_t>(setup.timeout.count()));
  return writer.Take();
}

MessageBytes Encode(const nccl::UniqueId& id) {
  Writer writer;
  writer.Put(RankCall::kJoin);
  writer.Put(id);
  return writer.Take();
}

MessageBytes Encode(const NativeRequest& request, const Staging& staging) {
  Writer writer;
  writer.Put(RankCall::kRun);
  writer.Put(staging);
  writer.PutList(request.primitive);
  writer.Put(request.count);
  writer.Put(request.dtype);
  writer.Put(request.op);
  writer.Put(request.root);
  writer.Put(request.scale);
  writer.Put(request.destination);
  writer.Put(request.source);
  writer.Put(request.in_place);
  for (const auto list : {request.send_counts, request.send_offsets,
                          request.recv_counts, request.recv_offsets}) {
    writer.PutList(list);
  }
  return writer.Take();
}

MessageBytes EncodeClose() {
  Writer writer;
  writer.Put(RankCall::kClose);
  return writer.Take();
}

StatusOr<std::unique_ptr<const RankMessage>> DecodeMessage(
    const MessageBytes& bytes) {
  Reader reader(bytes);
  auto message = std::make_unique<RankMessage>();
  message->call = reader.Get<RankCall>();
  switch (message->call) {
    case RankCall::kSetup: {
      RankSetup& setup = message->setup;
      setup.library = reader.Text();
      setup.emulated_gpus = reader.Get<int>();
      setup.gpu = reader.Get<int>();
      setup.rank = reader.Get<int>();
      setup.ranks = reader.Get<int>();
      setup.timeout = std::chrono::milliseconds(reader.Get<int64_t>());
      break;
    }
    case RankCall::kJoin:
      message->id = reader.Get<nccl::UniqueId>();
      break;
    case RankCall::kRun: {
      NativeRequest& request = message->request;
      message->staging = reader.Get<Staging>();
      message->primitive = reader.Text();
      request.primitive = message->primitive;
      request.count = reader.Get<int64_t>();
      request.dtype = reader.Get<DType>();
      request.op = reader.Get<ReduceOp>();
      request.root = reader.Get<int>();
      request.scale = reader.Get<double>();
      request.destination = reader.Get<int>();
      request.source = reader.Get<int>();
      request.in_place = reader.Get<bool>();
      for (auto& list : message->numbers) list = reader.Numbers();
      request.send_counts = message->numbers[0];
      request.send_offsets = message->numbers[1];
      request.recv_counts = message->numbers[2];
      request.recv_offsets = message->numbers[3];
      break;
    }
    case RankCall::kClose:
      break;
  }
  if (!reader.ok()) return Damaged();
  return std::unique_ptr<const RankMessage>(std::move(message));
}

MessageBytes Encode(const RankAnswer& answer) {
  Writer writer;
  writer.Put(answer.status.code());
  writer.PutList(answer.status.message().substr(0, kMostWords));
  writer.Put(answer.lost);
  writer.Put(answer.version);
  writer.Put(answer.id);
  return writer.Take();
}

StatusOr<RankAnswer> DecodeAnswer(const MessageBytes& bytes) {
  Reader reader(bytes);
  RankAnswer answer;
  const auto code = reader.Get<StatusCode>();
  std::string words = reader.Text();
  if (code != StatusCode::kOk) answer.status = Status(code, std::move(words));
  answer.lost = reader.Get<bool>();
  answer.version = reader.Get<int>();
  answer.id = reader.Get<nccl::UniqueId>();
  if (!reader.ok()) return Damaged();
  return answer;
}

}  // namespace shardproof
