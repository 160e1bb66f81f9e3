// What a page with `useChat` gets: the chat of `ai` itself, without React around it.
import { AbstractChat, DefaultChatTransport, lastAssistantMessageIsCompleteWithToolCalls } from 'ai';

class State {
  status = 'ready';
  error = undefined;
  messages = [];
  pushMessage = message => this.messages.push(message);
  popMessage = () => this.messages.pop();
  replaceMessage = (index, message) => (this.messages[index] = message);
  snapshot = value => structuredClone(value);
}

class Chat extends AbstractChat {
  constructor(init) {
    super({ ...init, state: new State() });
  }
}

const [url, how] = process.argv.slice(2);
const told = { calls: [], errors: [], data: [], finish: null, posts: 0 };
const post = (...request) => {
  if (++told.posts > 3) throw new Error('it asks again and again');
  return fetch(...request);
};
const chat = new Chat({
  id: 'chat',
  transport: new DefaultChatTransport({ api: url, fetch: post, prepareReconnectToStreamRequest: () => ({ api: url }) }),
  sendAutomaticallyWhen: how === 'agent' ? lastAssistantMessageIsCompleteWithToolCalls : undefined,
  onToolCall: ({ toolCall }) => told.calls.push({ name: toolCall.toolName, input: toolCall.input }),
  onError: error => told.errors.push(error.message),
  onData: part => told.data.push(part),
  onFinish: ({ isAbort, isDisconnect, isError, finishReason }) =>
    (told.finish = { isAbort, isDisconnect, isError, finishReason }),
});
await (how === 'resume' ? chat.resumeStream() : chat.sendMessage({ text: 'hello' }));
console.log(JSON.stringify({ ...told, status: chat.status, messages: chat.messages }));
